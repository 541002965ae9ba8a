"""`examples/verify_envelope.py`: forty lines without agentflow agree with the verifier on what any client dumped."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from agentflow.envelope import seal
from tests.streams.checking import check, sealed_in
from tests.streams.histories import Recording, Story, altered, record, swapped, without

SCRIPT = Path(__file__).parents[2] / "examples" / "verify_envelope.py"
WHOLE = record([Story("a", ("agent_with_tools", "tool", "agent")), Story("b", ("tool",), plain=True)], [0, 1] * 20)


def run(lines: Iterable[bytes], *files: Path) -> "subprocess.CompletedProcess[bytes]":
    """The script, by an interpreter that sees nothing but the standard library."""
    command = [sys.executable, "-S", "-I", str(SCRIPT), *map(str, files)]
    return subprocess.run(command, input=b"".join(lines), capture_output=True, check=False)


def bodies(recording: Recording) -> list[bytes]:
    """A dump of bodies, without the one plain goal: nothing says of it that it may be plain."""
    return [each.body + b"\n" for each in recording.messages if not each.body.startswith(b'{"goal"')]


def with_subjects(recording: Recording) -> list[bytes]:
    """A dump of subjects and bodies."""
    return [each.subject.encode() + b"\t" + each.body + b"\n" for each in recording.messages]


def index_of(schema: str) -> int:
    """Where the first envelope of a schema is."""
    return next(index for index, sealed in sealed_in(WHOLE).items() if sealed.envelope.schema == schema)


def test_it_is_at_most_forty_lines_of_standard_library() -> None:
    """So that whoever audits a mesh can read it before trusting it."""
    text = SCRIPT.read_text()
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]

    assert len(text.splitlines()) <= 40
    assert {alias.name for node in imports for alias in node.names} <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(text)))


@pytest.mark.parametrize("dump", [bodies, with_subjects])
def test_a_sound_dump_passes(dump: Callable[[Recording], list[bytes]]) -> None:
    """Exit code 0 and a summary; a plain goal is nobody's envelope."""
    ended = run(dump(WHOLE))
    chains = {sealed.envelope.chain for sealed in sealed_in(WHOLE).values()}

    assert (0, b"") == (ended.returncode, ended.stderr)
    assert f"{len(sealed_in(WHOLE))} envelopes, " in ended.stdout.decode()
    assert ended.stdout.decode().endswith(f" plain lines, {len(chains)} chains, 0 problems\n")


def test_a_plain_goal_is_told_and_no_problem() -> None:
    """Where its subject says that clients write there; without a subject, or on another one, it is a problem."""
    line, goal = next((n, each) for n, each in enumerate(WHOLE.messages, 1) if each.body.startswith(b'{"goal"'))
    sound = run(with_subjects(WHOLE))
    unknown = run(each.body + b"\n" for each in WHOLE.messages)
    elsewhere = run(with_subjects(altered(WHOLE, line - 1, goal.body, "workflows.b.out")))

    assert f"line {line}: not an envelope: " in sound.stdout.decode()
    assert ", 1 plain lines, " in sound.stdout.decode()
    assert (0, 1, 1) == (sound.returncode, unknown.returncode, elsewhere.returncode)
    assert unknown.stdout.decode().endswith(", 0 plain lines, 17 chains, 1 problems\n")


def test_files_are_read_where_they_are_named(tmp_path: Path) -> None:
    """Several make one dump; stdin is left alone."""
    one, other, lines = tmp_path / "one.jsonl", tmp_path / "other.jsonl", with_subjects(WHOLE)
    one.write_bytes(b"".join(lines[:5]))
    other.write_bytes(b"".join(lines[5:]))

    assert run(lines).stdout == run([], one, other).stdout
    assert 0 == run([b"junk\n"], one, other).returncode
    other.write_bytes(b"".join(lines[5:]).replace(b"somebody", b"nobodies", 1))
    assert (1, True) == ((ended := run([], one, other)).returncode, b"line 6: edited" in ended.stdout)
    assert 0 != run(lines, tmp_path / "nothing.jsonl").returncode


@pytest.mark.parametrize("dump", [bodies, with_subjects])
def test_an_envelope_whose_first_bytes_were_edited_fails(dump: Callable[[Recording], list[bytes]]) -> None:
    """It does not look like one any more, and is not skipped as if it had never been one."""
    end = index_of("run.completed/1")
    body = WHOLE.messages[end].body
    sealed = Recording([*WHOLE.messages[:end], *WHOLE.messages[end + 1 :], WHOLE.messages[end]])
    for start in range(18):
        edited = body[:start] + b"#" + body[start + 1 :]
        ended = run(dump(altered(sealed, len(sealed.messages) - 1, edited)))
        assert 1 == ended.returncode
        assert f"line {len(dump(sealed))}: not an envelope" in ended.stdout.decode()


@pytest.mark.parametrize("stream", ["AF_MESSAGES", "AF_AGENTS", "AF_AUDIT"])
def test_a_dump_of_one_stream_passes(stream: str) -> None:
    """What lives on other streams is not missed."""
    assert 0 == run(with_subjects(Recording(WHOLE.of(stream)))).returncode


def test_empty_lines_are_left_out_and_chatter_is_told() -> None:
    """Clients print empty lines between messages; a header of theirs cannot be told from a message that was edited."""
    lines = [part for line in bodies(WHOLE) for part in (line, b"\n", b"\r\n")]
    ended = run([b"[#1] Received on something\n", *lines])

    assert 0 == run(lines).returncode
    assert (1, True) == (ended.returncode, b"line 1: not an envelope: b'[#1] Received" in ended.stdout)


@pytest.mark.parametrize("index", sorted(sealed_in(WHOLE)))
def test_an_edited_message_fails(index: int) -> None:
    """One line a problem, with the line it is on; exit code 1."""
    body = WHOLE.messages[index].body.replace(b"somebody", b"nobodies", 1)
    ended = run(with_subjects(altered(WHOLE, index, body)))
    told = ended.stdout.decode().splitlines()

    assert 1 == ended.returncode
    assert told[0].startswith(f"line {index + 1}: edited, the bytes hash to ")
    assert told[-1].endswith(" problems")


def test_a_moved_message_fails() -> None:
    """Where subjects were dumped."""
    index = index_of("tool.outcome/1")
    ended = run(with_subjects(altered(WHOLE, index, WHOLE.messages[index].body, "tools.audit.other")))

    assert 1 == ended.returncode
    assert f"line {index + 1}: moved" in ended.stdout.decode()


@pytest.mark.parametrize("schema", ["goal.accepted/1", "tool.intent/1"])
def test_a_missing_message_fails(schema: str) -> None:
    """A gap in a chain that lives on one stream."""
    ended = run(bodies(without(WHOLE, index_of(schema))))

    assert 1 == ended.returncode
    assert "missing, places 0 to 0 of" in ended.stdout.decode()


def test_a_message_sealed_again_fails() -> None:
    """Its own hash is right, and what follows does not rest on it."""
    index = index_of("goal.accepted/1")
    forged = seal(msgspec.structs.replace(sealed_in(WHOLE)[index].envelope, to="somebody-else"))
    ended = run(bodies(altered(WHOLE, index, forged.body)))

    assert 1 == ended.returncode
    assert "does not rest on the one before it" in ended.stdout.decode()


def test_a_message_stored_twice_fails() -> None:
    """One place, two messages."""
    ended = run([*bodies(WHOLE), WHOLE.messages[index_of("tool.intent/1")].body + b"\n"])

    assert 1 == ended.returncode
    assert "unlinked, place 0 of audit:" in ended.stdout.decode()


def test_the_order_of_a_dump_does_not_matter() -> None:
    """Unlike the verifier it does not know sequences; it says nothing about order, and claims nothing."""
    one, other = index_of("goal.accepted/1"), index_of("run.advanced/1")

    assert 0 == run(with_subjects(swapped(WHOLE, one, other))).returncode
    assert not check(swapped(WHOLE, one, other)).ok


def test_an_empty_dump_says_so() -> None:
    """Nothing was checked, and that is no success."""
    ended = run([])

    assert (1, b"0 envelopes, 0 plain lines, 0 chains, 0 problems\n") == (ended.returncode, ended.stdout)
    assert b"no envelope was seen" in ended.stderr
    assert 1 == run([b"workflows.a.in\t{}\n"]).returncode
