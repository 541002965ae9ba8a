"""Every call runs under limits that were compiled before: the lesser of what is declared and what is allowed."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agentflow.project import Grant
from agentflow.registry import ToolDeclaration
from agentflow.tools import ToolSchema
from agentflow_executor.profile import MIB, ExecProfile, ExecProfileCompiler, Limits, Policies, StaticProfileCompiler

COMPILER: ExecProfileCompiler = StaticProfileCompiler()


def schema(*permissions: str, timeout: float = 5.0) -> ToolSchema:
    """A tool with some permissions."""
    return ToolSchema(ToolDeclaration("send", "send", "1.0.0", "", {}, {}, permissions or ("none",), "pure", timeout))


def compiled(*permissions: str, timeout: float = 5.0, policies: Policies | None = None) -> ExecProfile:
    """A profile of that tool."""
    return COMPILER.compile("clerk", schema(*permissions, timeout=timeout), policies or Policies())


def test_a_profile_says_for_whom_and_what_it_is() -> None:
    """Principal, tool and version are part of it."""
    profile = compiled()

    assert ("clerk", "send", "1.0.0", "process", None) == (
        profile.principal,
        profile.tool,
        profile.version,
        profile.sandbox,
        profile.uid,
    )


@given(
    timeout=st.floats(0.001, 10_000),
    memory=st.integers(1, 100_000),
    wall=st.floats(0.001, 10_000),
    cpu=st.integers(1, 1000),
    most=st.integers(MIB, 10_000 * MIB),
)
def test_a_tool_never_gets_more_than_the_policies_allow(
    timeout: float, memory: int, wall: float, cpu: int, most: int
) -> None:
    """Nor more than it declares; and always at least a second of CPU."""
    limits = Limits(wall_seconds=wall, cpu_seconds=cpu, memory_bytes=most)
    profile = compiled(timeout=timeout, policies=Policies(memory_mib=memory, limits=limits))

    assert min(timeout, wall) == profile.wall_seconds
    assert min(memory * MIB, most) == profile.memory_bytes
    assert 1 <= profile.cpu_seconds <= cpu


def test_only_who_may_write_gets_a_file_size() -> None:
    """`fs.tmp` or an append grant; reading needs none."""
    grants = {"outbox": Grant("/x", "append")}
    reading = {"book": Grant("/x", "read")}

    assert 0 == compiled().file_bytes
    assert 0 == compiled("fs.read:book", policies=Policies(grants=reading)).file_bytes
    assert Limits().file_bytes == compiled("fs.tmp").file_bytes
    assert Limits().file_bytes == compiled("fs.append:outbox", policies=Policies(grants=grants)).file_bytes


def test_the_same_facts_have_the_same_hash() -> None:
    """Whoever compiles it; and any other fact another one."""
    first = compiled("fs.tmp")
    others = [
        compiled(),
        compiled("fs.tmp", timeout=6),
        compiled("fs.tmp", policies=Policies(uid=65534)),
        compiled("fs.tmp", policies=Policies(grants={"a": Grant("/x")})),
        compiled("fs.tmp", policies=Policies(grants={"a": Grant("/y")})),
        compiled("fs.tmp", policies=Policies(limits=replace(Limits(), processes=1))),
        COMPILER.compile("boss", schema("fs.tmp"), Policies()),
    ]

    assert first.sha256 == compiled("fs.tmp").sha256
    assert 64 == len(first.sha256)
    assert len(others) + 1 == len({first.sha256, *(each.sha256 for each in others)})
