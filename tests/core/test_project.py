"""The project file: what it may hold, and one clear error for everything else."""

from pathlib import Path

import pytest

from agentflow.errors import ConfigError
from agentflow.project import AgentSpec, Allow, Grant, Project, ToolSpec, load_project

FULL = """
agents:
  - use: desk.agents:Classifier
  - use: desk.agents:Writer
    id: writer-2
    concurrency: 4
    settings: {model: small, limits: [1, 2.5, null]}
tools:
  - use: desk.tools:send_response
    settings: {greeting: Hello}
    grants:
      outbox: {path: outbox.jsonl, mode: append}
      articles: {path: /srv/articles}
allow:
  agents: {writer-2: [send_response]}
  workflows: {support: [knowledge_search]}
workflows: [support.yaml]
"""


def written(folder: Path, text: str | bytes, name: str = "mesh.yaml") -> Path:
    """A project file."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    """Into typed values, with the documented defaults."""
    path = written(tmp_path, FULL)

    assert Project(
        agents=[
            AgentSpec("desk.agents:Classifier"),
            AgentSpec("desk.agents:Writer", "writer-2", 4, {"model": "small", "limits": [1, 2.5, None]}),
        ],
        tools=[
            ToolSpec(
                "desk.tools:send_response",
                {"greeting": "Hello"},
                {"outbox": Grant("outbox.jsonl", "append"), "articles": Grant("/srv/articles", "read")},
            )
        ],
        allow=Allow({"writer-2": ["send_response"]}, {"support": ["knowledge_search"]}),
        workflows=["support.yaml"],
        path=str(path),
    ) == load_project(path)


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "{}", "null"])
def test_an_empty_file_is_an_empty_project(tmp_path: Path, text: str) -> None:
    """Nothing is hosted and nothing is allowed."""
    project = load_project(written(tmp_path, text))

    assert ([], [], Allow(), []) == (project.agents, project.tools, project.allow, project.workflows)


def test_no_file_is_an_empty_project_too() -> None:
    """Agents may be named on the command line; paths then start from where one is."""
    assert Project() == load_project(None)
    assert Path.cwd() == load_project(None).folder


def test_paths_start_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it was named, and also after the process changed its folder."""
    written(tmp_path, FULL)
    monkeypatch.chdir(tmp_path)
    project = load_project(Path("mesh.yaml"))
    monkeypatch.chdir("/")

    assert tmp_path == project.folder


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("agents: [", "line 1"),
        ("a: b: c", "mapping values"),
        ("agents: &x [*x]", "agents"),
        ("[]", "Expected `object`"),
        ("false", "Expected `object`"),
        ("0", "Expected `object`"),
        ('""', "Expected `object`"),
        ("just text", "Expected `object`"),
        ("agent: []", "unknown field `agent`"),
        ("path: /x", "unknown key 'path'"),
        ('path: ""', "unknown key 'path'"),
        ("agents: []\nagents: []", "key 'agents' stands twice"),
        ("allow:\n  agents:\n    a: [x]\n    a: [y]", "line 4"),
        ("agents: {}", "$.agents"),
        ("agents: [{}]", "missing required field `use`"),
        ("agents: [{use: 7}]", "$.agents[0].use"),
        ("agents: [{use: a:B, concurrency: many}]", "concurrency"),
        ("agents: [{use: a:B, Settings: {}}]", "unknown field `Settings`"),
        ("tools: [{use: a:b, grants: {x: {path: y, mode: write}}}]", "mode"),
        ("tools: [{use: a:b, grants: {x: y}}]", "$.tools[0].grants"),
        ("allow: {agents: {a: send}}", "$.allow.agents"),
        ("allow: {everyone: [x]}", "unknown field `everyone`"),
        ("workflows: support.yaml", "$.workflows"),
        ("since: 2026-99-99", "month"),
        ("agents: !!python/object/apply:os.system ['true']", "python/object"),
        ("? [a]\n: b", ""),
        (b"agents: [\xff]", "utf-8"),
        (b"agents: \x00", ""),
        ("[" * 20_000, ""),
    ],
    ids=lambda value: str(value)[:30] or "-",
)
def test_what_is_wrong_is_told_with_the_file(tmp_path: Path, text: str | bytes, names: str) -> None:
    """YAML errors with their line, unknown keys, wrong types with their place; nothing is run and nothing is ignored."""
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as refused:
        load_project(path)

    assert "project.invalid" == refused.value.error_code
    assert str(path) == refused.value.fields["path"]
    assert str(refused.value).startswith(f"{path}: ")
    assert names in str(refused.value)


def test_anchors_may_be_used(tmp_path: Path) -> None:
    """What several agents share is written once; a key of one's own stands above a merged one."""
    text = """
agents:
  - &first {use: "a:A", concurrency: 2, settings: &common {model: small}}
  - {<<: *first, use: "b:B"}
  - {use: "c:C", settings: *common}
"""

    assert [
        AgentSpec("a:A", concurrency=2, settings={"model": "small"}),
        AgentSpec("b:B", concurrency=2, settings={"model": "small"}),
        AgentSpec("c:C", settings={"model": "small"}),
    ] == load_project(written(tmp_path, text)).agents


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    """Not there, or a folder."""
    with pytest.raises(ConfigError) as refused:
        load_project(tmp_path / name)

    assert "project.invalid" == refused.value.error_code
