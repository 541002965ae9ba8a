"""Loading the tools of a project: what is wrong is said at the start, with the file and the tool."""

from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import ConfigError
from agentflow.project import Grant, load_project
from agentflow_executor.catalog import Catalog, load_catalog, load_tool
from agentflow_executor.permissions import Decision
from agentflow_executor.profile import MIB, Policies
from agentflow_executor.sandbox import KNOWN, make_sandbox
from tests.services.executor import sample_tools

MODULE = sample_tools.__name__


def load(folder: Path, text: str) -> Catalog:
    """The catalog of a project file with that text."""
    path = folder / "agentflow.yaml"
    path.write_text(text)
    return load_catalog(load_project(path), Policies())


def refusal(folder: Path, text: str) -> ConfigError:
    """Why it is refused."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return caught.value


def test_a_project_without_tools_has_an_empty_catalog() -> None:
    """Nothing is offered, nothing is wrong."""
    empty = load_catalog(load_project(None), Policies())

    assert ({}, []) == (empty.tools, empty.declarations)
    assert "tool.unknown" == empty.access.decide("a", "b").code


def test_tools_are_loaded_with_what_the_file_says(tmp_path: Path) -> None:
    """Settings, grants with absolute paths, permissions and allow-lists."""
    (tmp_path / "sub").mkdir()
    found = load(
        tmp_path,
        f"""
tools:
  - use: {MODULE}:append_line
    settings: {{colour: red}}
    grants:
      outbox: {{path: sub/outbox.jsonl, mode: append}}
  - use: {MODULE}:hog
allow:
  agents: {{clerk: [append_line]}}
  workflows: {{support: [hog]}}
""",
    )

    sender = found.tools["append_line"]
    assert {"outbox": Grant(str(tmp_path / "sub" / "outbox.jsonl"), "append")} == sender.policies.grants
    assert {"colour": "red"} == sender.spec.settings
    assert sender.grants.allowed
    assert sender.checkable
    assert not found.tools["hog"].checkable
    assert 256 * MIB == found.tools["hog"].policies.memory_mib * MIB
    assert ["append_line", "hog"] == [each.id for each in found.declarations]
    assert found.access.decide("clerk", "append_line").allowed
    assert found.access.decide("workflow:support", "hog").allowed
    assert not found.access.decide("clerk", "hog").allowed


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("nonsense", "must be 'module:tool'"),
        ("module:", "must be 'module:tool'"),
        (":tool", "must be 'module:tool'"),
        ("module:a.b", "must be 'module:tool'"),
        ("no_such_module:tool", "cannot load"),
        (f"{MODULE}:no_such_tool", "cannot load"),
        (f"{MODULE}:not_a_tool", "is dict, not a tool"),
        (f"{MODULE}:json", "is module, not a tool"),
    ],
)
def test_what_is_no_tool_is_refused(tmp_path: Path, use: str, said: str) -> None:
    """File and tool are in the message."""
    error = refusal(tmp_path, f"tools: [{{use: '{use}'}}]")

    assert said in str(error)
    assert str(tmp_path / "agentflow.yaml") in str(error)
    assert use in str(error)
    assert "tool.refused" == error.error_code


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('broken on import')", "RuntimeError: broken on import"),
        ("def f(:", "SyntaxError"),
        ('@tool(effect="pure", permissions=["fs.everything"])\ndef t(ctx: ToolContext) -> None: ...', "fs.everything"),
        ('@tool(effect="pure", input_schema={"type": "objekt"})\ndef t(ctx: ToolContext) -> None: ...', "input_schema"),
        ('@tool(effect="pure", output_schema={"pattern": "("})\ndef t(ctx: ToolContext) -> None: ...', "output_schema"),
        ('@tool(effect="pure", timeout=0)\ndef t(ctx: ToolContext) -> None: ...', "timeout is 0"),
    ],
)
def test_a_tool_that_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    """Its module does not load, or it declares what nobody understands."""
    name = f"tool_module_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"from agentflow.tools import ToolContext, tool\n{body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert said in str(refusal(tmp_path, f"tools: [{{use: '{name}:t'}}]"))


def test_an_id_is_used_once(tmp_path: Path) -> None:
    """Both places are named."""
    error = refusal(tmp_path, f"tools: [{{use: '{MODULE}:add'}}, {{use: '{MODULE}:add'}}]")

    assert "'add' is also that of" in str(error)


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ("{path: missing.txt}", "no such file"),
        ("{path: ., mode: read}", "no such file"),
        ("{path: nowhere/outbox, mode: append}", "its folder does not exist"),
    ],
)
def test_a_granted_file_has_to_be_there(tmp_path: Path, grant: str, said: str) -> None:
    """To read it, or its folder to append to it."""
    error = refusal(tmp_path, f"tools: [{{use: '{MODULE}:read_book', grants: {{book: {grant}}}}}]")

    assert said in str(error)
    assert "grant 'book'" in str(error)


def test_a_grant_that_is_missing_is_said_at_each_call(tmp_path: Path) -> None:
    """The tool is there, and refused: an operator may withhold what it asks for."""
    found = load(tmp_path, f"tools: [{{use: '{MODULE}:append_line'}}]\nallow: {{agents: {{a: [append_line]}}}}")

    assert "permission.missing" == found.access.decide("a", "append_line").code
    assert isinstance(found.tools["append_line"].grants, Decision)


def test_an_allow_list_for_a_tool_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A typing error would deny in silence."""
    error = refusal(tmp_path, f"tools: [{{use: '{MODULE}:add'}}]\nallow: {{agents: {{clerk: [ad]}}}}")

    assert "allow.agents.clerk names tool 'ad'" in str(error)
    assert "it has add" in str(error)


def test_one_tool_can_be_loaded_alone(tmp_path: Path) -> None:
    """Its schemas are compiled."""
    from agentflow.project import ToolSpec

    found = load_tool(ToolSpec(f"{MODULE}:add"), tmp_path, Policies())

    assert "" == found.inputs.problem({"a": 1})
    assert found.outputs.problem({"sum": "x"})


@pytest.mark.parametrize(
    ("name", "said"), [("gvisor", "not built yet"), ("docker", "not built yet"), ("chroot", "unknown")]
)
def test_a_sandbox_that_is_not_there_is_refused(name: str, said: str) -> None:
    """Never a weaker one in its place."""
    with pytest.raises(ConfigError, match=said) as caught:
        make_sandbox(name, slots=1, uid=65534)

    assert "sandbox.unsupported" == caught.value.error_code
    assert "process" in KNOWN


def test_the_process_sandbox_is_made_by_its_name() -> None:
    """`AF_SANDBOX=process`."""
    found: Any = make_sandbox("process", slots=1, uid=65534)

    assert "ProcessSandbox" == type(found).__name__
    found.close()
