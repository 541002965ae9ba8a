"""What `agentflow demo` refuses, and with which words: before anything is started, or as soon as it can be known."""

import errno
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from agentflow import subjects
from agentflow.chain import incarnation_chain
from agentflow.cli import app
from agentflow.client import Client
from agentflow.errors import MeshError
from agentflow.ids import new_id
from agentflow.mesh.publishing import store
from agentflow.payloads import Lifecycle
from agentflow.registry import REGISTRY
from agentflow.schemas import compose
from agentflow.testing import memory_mesh
from agentflow_support_desk import demo
from agentflow_support_desk.classifier import check_examples
from agentflow_support_desk.demo import prepare
from agentflow_support_desk.errors import AgentNotReadyError, DataDirUsedError, TrainingError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def started(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of the command."""
    code = app.run(["demo", *arguments])
    return code, capsys.readouterr().err


# --- the examples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("hello there,one\n", "1 examples of 1 intents"),
        ("hello there,one\nand again,one\n", "2 examples of 1 intents"),
        ("hello there,one\n!!!,two\n", "'!!!' as an example of 'two'"),
    ],
)
def test_examples_that_nothing_can_be_learned_from_are_refused_at_once(
    rows: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and nothing is laid out or started."""
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: pytest.fail("it was started"))
    (tmp_path / "examples.csv").write_text("text,category\n" + rows)
    code, err = started(capsys, "--examples", str(tmp_path / "examples.csv"), "--data-dir", str(tmp_path / "demo"))

    assert 2 == code
    assert "error[classifier.examples]" in err
    assert words in err
    assert not (tmp_path / "demo").exists()


def test_examples_are_checked_as_the_training_does() -> None:
    """What passes has its intents, sorted; nothing is no examples."""
    assert ("a", "b") == check_examples([("one", "b"), ("two", "a"), ("three", "b")])
    with pytest.raises(TrainingError):
        check_examples([])


# --- the data directory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "case"),
    [(errno.EROFS, "server.data_dir"), (errno.EACCES, "server.data_dir"), (errno.ENOSPC, "server.disk_full")],
)
def test_a_directory_that_cannot_be_written_is_the_servers_error(
    number: int, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4, the directory, and what to do about it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MeshError) as caught:
        prepare(tmp_path / "demo")

    assert (case, 4) == (caught.value.error_code, caught.value.exit_code)
    assert str(tmp_path / "demo") in caught.value.message
    assert "--data-dir" in str(caught.value.fields["hint"])
    assert "--ephemeral" not in str(caught.value.fields["hint"])


def test_a_file_where_the_directory_should_be_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By the command, without a word about internals."""
    (tmp_path / "demo").write_text("")
    code, err = started(capsys, "--limit", "1", "--data-dir", str(tmp_path / "demo"))

    assert 4 == code
    assert f"error[server.data_dir]: data directory {tmp_path / 'demo'}" in err


@pytest.mark.parametrize("record", ["mesh/jetstream/x", "outbox.jsonl", "cases.jsonl", "agentflow.yaml"])
def test_a_folder_that_holds_a_run_or_a_project_is_refused(
    record: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 7; what is there stays as it is. Its runs would be taken for new ones, and their time for nothing."""
    (tmp_path / record).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / record).write_text("{}")
    code, err = started(capsys, "--limit", "1", "--data-dir", str(tmp_path))

    assert 7 == code
    assert "error[demo.data_dir_used]" in err
    assert record.removesuffix("/x") in err
    assert "hint: give another --data-dir" in err
    assert "{}" == (tmp_path / record).read_text()
    assert 1 == len(list(tmp_path.iterdir()))


def test_a_folder_that_was_only_laid_out_may_be_used(tmp_path: Path) -> None:
    """After a start that failed, say for want of a nats-server, the same command can be given again."""
    prepare(tmp_path / "demo")
    prepare(tmp_path / "demo")

    (tmp_path / "demo" / "outbox.jsonl").write_text("{}\n")
    with pytest.raises(DataDirUsedError):
        prepare(tmp_path / "demo")


# --- the agents -----------------------------------------------------------------------------------------------------


async def tell(client: Client, agent: str, state: str, detail: str = "") -> None:
    """Let a runtime tell of an agent."""
    payload = msgspec.convert(
        {"component": agent, "incarnation": "i1", "state": state, "detail": detail}, type=Lifecycle
    )
    await store(
        client.transport,
        compose(
            payload,
            id=new_id(NOW, lambda count: b"0" * count),
            subject=subjects.agent_out(agent),
            sender=agent,
            to="operator",
            trace_id="1" * 32,
            span_id="1" * 16,
            ts=NOW,
            place=incarnation_chain(agent, "i1"),
        ),
    )


async def test_an_agent_that_failed_ends_the_wait_with_its_reason(tmp_path: Path) -> None:
    """At once, and not after the ten minutes a ticket gets."""
    async with memory_mesh() as mesh:
        client = Client(mesh)
        await tell(client, "writer", "started")
        await tell(client, "classifier", "failed", "on_start: TrainingError: cannot train on 1 examples")
        with pytest.raises(AgentNotReadyError, match="classifier did not start: on_start: TrainingError") as caught:
            await demo._until_hosted(client, tmp_path / "runtime.log")

    assert ("demo.agent_not_ready", 1) == (caught.value.error_code, caught.value.exit_code)
    assert str(tmp_path / "runtime.log") in str(caught.value.fields["hint"])


async def test_an_agent_that_never_comes_ends_the_wait_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, with the time it had."""
    assert demo.LEARNING <= 60
    monkeypatch.setattr(demo, "LEARNING", 0.15)
    async with memory_mesh() as mesh:
        registry = await mesh.bucket(REGISTRY)
        for agent in ("bookkeeper", "classifier"):
            await registry.put(f"agent.{agent}.i1", json.dumps({}).encode())
        with pytest.raises(AgentNotReadyError, match=r"writer did not start: it was not ready within 0\.15 s"):
            await demo._until_hosted(Client(mesh), tmp_path / "runtime.log")


async def test_the_wait_ends_when_all_agents_are_there(tmp_path: Path) -> None:
    """Whatever else is."""
    async with memory_mesh() as mesh:
        registry = await mesh.bucket(REGISTRY)
        for agent in ("bookkeeper", "classifier", "writer", "other"):
            await registry.put(f"agent.{agent}.i1", b"{}")
        await demo._until_hosted(Client(mesh), tmp_path / "runtime.log")
