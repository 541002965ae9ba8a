"""The commands `streams` and `verify`, as a shell runs them: output, errors, exit codes; and the provisioning module."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from agentflow.cli import session
from agentflow.mesh.jetstream import JetStreamTransport
from agentflow_streams import __main__ as provisioning
from agentflow_streams import commands, render
from agentflow_streams.definitions import definition_of, definitions
from tests.streams.histories import Recording, Story, altered, record
from tests.streams.pouring import pour
from tests.support.nats_server import NatsServer

HEAVY = ("nats", "pydantic", "rich", "asyncio", "structlog", "msgspec")


def run(*arguments: str) -> Result:
    """Run a command in this process, as `agentflow` would."""
    app = typer.Typer(rich_markup_mode=None)
    commands.register(app)
    return CliRunner().invoke(app, list(arguments))


async def shell(*arguments: str) -> Result:
    """The same beside a running event loop: a command has a loop of its own."""
    return await asyncio.to_thread(run, *arguments)


def told(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


async def filled(transport: JetStreamTransport, recording: Recording | None = None) -> Recording:
    """A mesh with a history."""
    recording = recording or record([Story("a", ("agent_with_tools", "tool")), Story("b", plain=True)])
    await pour(transport, recording)
    return recording


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_streams_are_made_and_listed(server: NatsServer) -> None:
    """`apply` on an empty server, `ls` afterwards; both speak JSON."""
    applied = await shell("streams", "apply", "--nats-url", server.url, "--json")
    listed = await shell("streams", "ls", "--nats-url", server.url, "--json")

    assert (0, True) == (applied.exit_code, told(applied)["safe"])
    assert {"created"} == {stream["state"] for stream in told(applied)["streams"]}
    assert [definition.name for definition in definitions()] == [stream["name"] for stream in told(listed)]
    assert all(stream["safe"] and stream["drift"] == [] for stream in told(listed))


async def test_streams_alone_lists_them(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """The shortest thing to type shows what there is."""
    await filled(jetstream)
    shown = await shell("streams", "--nats-url", server.url)

    assert 0 == shown.exit_code
    assert "AF_MESSAGES" in shown.stdout
    assert "workflows.>" in shown.stdout
    assert "as declared" in shown.stdout


async def test_missing_streams_are_listed_as_missing(server: NatsServer) -> None:
    """Nothing is made by looking."""
    listed = await shell("streams", "ls", "--nats-url", server.url, "--json")
    shown = await shell("streams", "ls", "--nats-url", server.url)

    assert {False} == {stream["exists"] for stream in told(listed)}
    assert "missing" in shown.stdout


async def test_drift_is_shown_and_mended_on_request(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """Told with a hint, left alone; mended with --update."""
    await jetstream.create_stream({**definition_of("AF_DEAD").config(), "description": "ours"})
    first = await shell("streams", "apply", "--nats-url", server.url)
    listed = await shell("streams", "ls", "--nats-url", server.url)
    second = await shell("streams", "apply", "--update", "--nats-url", server.url, "--json")

    assert 0 == first.exit_code
    assert "AF_DEAD.description is 'ours'" in first.stdout
    assert "--update" in first.stderr
    assert "1 differ" in listed.stdout
    assert ["AF_DEAD"] == [stream["name"] for stream in told(second)["streams"] if stream["state"] == "updated"]


async def test_a_lost_protection_ends_with_a_conflict(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """Exit code 7: what should keep evidence does not."""
    await jetstream.create_stream({**definition_of("AF_DEAD").config(), "deny_purge": False})
    applied = await shell("streams", "apply", "--nats-url", server.url, "--json")

    assert (7, False) == (applied.exit_code, told(applied)["safe"])


async def test_choices_of_a_deployment_are_flags_and_variables(
    server: NatsServer, jetstream: JetStreamTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AF_CAPACITY`, `AF_HEARTBEAT`, `--capacity` … and `ls` compares with the same choices."""
    monkeypatch.setenv("AF_CAPACITY", "0.5")
    assert 0 == (await shell("streams", "apply", "--heartbeat", "1", "--nats-url", server.url)).exit_code
    monkeypatch.setenv("AF_HEARTBEAT", "1")
    listed = told(await shell("streams", "ls", "--nats-url", server.url, "--json"))
    registry = await jetstream.stream_info("KV_AF_REGISTRY")

    assert registry is not None
    assert 3_000_000_000 == registry.config["max_age"]
    assert {stream["name"]: stream["max_bytes"] for stream in listed}["AF_AUDIT"] == 2**29
    assert all(stream["drift"] == [] for stream in listed)


@pytest.mark.parametrize(
    ("arguments", "words"), [(("--capacity", "0"), "capacity"), (("--heartbeat", "0.001"), "registry_ttl")]
)
async def test_a_choice_nobody_can_take_is_one_clear_error(
    server: NatsServer, arguments: tuple[str, str], words: str
) -> None:
    """Exit code 2, the code of the error, and what is allowed."""
    applied = await shell("streams", "apply", *arguments, "--nats-url", server.url)

    assert 2 == applied.exit_code
    assert "error[streams.choice]" in applied.stderr
    assert words in applied.stderr
    assert "Traceback" not in applied.output


# --- verify ----------------------------------------------------------------------------------------------------------


async def test_a_sound_history_ends_with_0(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """One JSON document, with all a program needs."""
    recording = await filled(jetstream)
    verified = await shell("verify", "--nats-url", server.url, "--json")
    found = told(verified)

    assert (0, True) == (verified.exit_code, found["ok"])
    assert len(recording.messages) == found["envelopes"] + found["adopted"]
    assert {"ok", "envelopes", "chains", "runs", "open_runs", "damages", "warnings", "not_vouched"} <= found.keys()
    assert found["not_vouched"]
    assert "" == verified.stderr


async def test_a_person_is_told_what_was_checked(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """Integrity, continuity and completeness are three things, and the last is not proven."""
    await filled(jetstream)
    shown = (await shell("verify", "--nats-url", server.url)).stdout

    assert "integrity     ok" in shown
    assert "continuity    ok" in shown
    assert "completeness  not proven" in shown
    assert "No signed head was checked" in shown


async def test_continuity_that_was_not_all_checked_is_not_called_ok(
    server: NatsServer, jetstream: JetStreamTransport
) -> None:
    """A stream by itself rests on others: how many places and references were left out stands beside the verdict."""
    await filled(jetstream)
    shown = await shell("verify", "--stream", "AF_MESSAGES", "--nats-url", server.url)
    found = told(await shell("verify", "--stream", "AF_MESSAGES", "--nats-url", server.url, "--json"))

    assert (0, True) == (shown.exit_code, found["unchecked"] > 0)
    assert "continuity    ok" not in shown.stdout
    assert f"continuity    not all checked ({found['unchecked']} places or references were not" in shown.stdout


async def test_damage_ends_with_1_and_is_named(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """Stream, sequence, kind, chain and a sentence, for people and for programs."""
    recording = record([Story("a", ("agent", "agent"))])
    index = next(i for i, each in enumerate(recording.messages) if b"run.advanced" in each.body)
    before = recording.messages[index]
    await filled(jetstream, altered(recording, index, before.body.replace(b"somebody", b"nobodies")))
    shown = await shell("verify", "--nats-url", server.url)
    verified = await shell("verify", "--nats-url", server.url, "--json")
    (damage,) = told(verified)["damages"]

    assert (1, 1) == (shown.exit_code, verified.exit_code)
    assert (before.stream, before.seq, "edited") == (damage["stream"], damage["seq"], damage["kind"])
    assert damage["chain"].startswith("workflow:a:")
    assert f"{before.stream} {before.seq}  edited  {damage['chain']}" in shown.stdout
    assert "integrity     1 damaged" in shown.stdout


async def test_one_run_one_stream_and_a_moment_can_be_asked_for(
    server: NatsServer, jetstream: JetStreamTransport
) -> None:
    """The flags narrow what is read."""
    await filled(jetstream)
    run_only = told(await shell("verify", "-w", "b", "--nats-url", server.url, "--json"))
    streams = told(await shell("verify", "-s", "AF_AUDIT", "-s", "AF_DEAD", "--nats-url", server.url, "--json"))
    recent = told(await shell("verify", "--since", "1h", "--nats-url", server.url, "--json"))
    future = told(await shell("verify", "--since", "2999-01-01T00:00:00Z", "--nats-url", server.url, "--json"))

    assert (True, 1, 1) == (run_only["ok"], run_only["runs"], run_only["adopted"])
    assert ["AF_AUDIT", "AF_DEAD"] == [stream["name"] for stream in streams["streams"]]
    assert 2 == recent["runs"]
    assert 0 == future["envelopes"]


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("--workflow", "nobody"), "run.unknown", 3),
        (("--workflow", "a.b"), "id.invalid", 2),
        (("--stream", "AF_NOTHING"), "stream.unknown", 3),
        (("--stream", "AF_TIMERS"), "stream.no_evidence", 2),
        (("--since", "yesterday"), "since.invalid", 2),
    ],
)
async def test_what_cannot_be_verified_is_one_clear_error(
    server: NatsServer, jetstream: JetStreamTransport, arguments: tuple[str, str], code: str, exit_code: int
) -> None:
    """Its code and exit code, as a line for people and as JSON for programs; never a traceback."""
    await filled(jetstream)
    shown = await shell("verify", *arguments, "--nats-url", server.url)
    verified = await shell("verify", *arguments, "--nats-url", server.url, "--json")

    assert (exit_code, exit_code) == (shown.exit_code, verified.exit_code)
    assert f"error[{code}]:" in shown.stderr
    assert "" == shown.stdout
    assert code == told(verified)["error"]["code"]
    assert "Traceback" not in shown.output


async def test_no_broker_ends_with_4(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.setattr(session, "CONNECT_TIMEOUT", 0.1)
    server.kill()
    for command in (("verify",), ("streams", "ls"), ("streams", "apply"), ("streams",)):
        ended = await shell(*command, "--nats-url", server.url)
        assert 4 == ended.exit_code
        assert "error[mesh.unreachable]" in ended.stderr
        assert "hint: " in ended.stderr


def test_every_command_shows_examples() -> None:
    """Whoever asks for help sees a line to copy."""
    for command in (("verify",), ("streams",), ("streams", "ls"), ("streams", "apply")):
        shown = run(*command, "--help")
        assert 0 == shown.exit_code
        assert "Examples:" in shown.stdout
        assert f"agentflow {' '.join(command)}" in shown.stdout


def test_help_is_light() -> None:
    """`agentflow --help` imports this module: nothing heavy may come with it."""
    code = "import sys, agentflow_streams.commands; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    loaded = set(done.stdout.split())

    assert [] == [name for name in HEAVY if name in loaded]
    assert not {"agentflow_streams.verify", "agentflow_streams.provision", "agentflow.envelope"} & loaded


def test_long_lists_are_cut_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand open runs do not fill the screen."""
    render.print_provisioned({"streams": []})
    render._print_lines("many", (f"line {number}" for number in range(100)))
    shown = capsys.readouterr().out

    assert "line 19" in shown
    assert "line 20" not in shown
    assert "… and 80 more (--json has all)" in shown


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**30, "1.0 GiB"), (2**60, "1048576.0 TiB")]
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    """Powers of two, named as such."""
    assert text == render.size(count)


# --- python -m agentflow_streams -------------------------------------------------------------------------------------


def provision_process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The module as a container runs it."""
    return subprocess.run(
        [sys.executable, "-m", "agentflow_streams", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


async def test_a_container_provisions_by_environment(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """Exit code 0, a JSON line for each stream, and the same again changes nothing."""
    first = await asyncio.to_thread(provision_process, AF_NATS_URL=server.url)
    second = await asyncio.to_thread(provision_process, "--nats-url", server.url)
    lines = [json.loads(line) for line in first.stdout.splitlines() + first.stderr.splitlines()]

    assert (0, 0) == (first.returncode, second.returncode)
    assert {"stream.created"} == {line["event"] for line in lines}
    assert len(definitions()) == len(lines)
    assert "stream.unchanged" in second.stdout + second.stderr
    assert len(definitions()) == len(await jetstream.stream_names())


async def test_an_unsafe_stream_fails_the_container(server: NatsServer, jetstream: JetStreamTransport) -> None:
    """Services must not start on streams that do not keep evidence."""
    await jetstream.create_stream({**definition_of("AF_DEAD").config(), "deny_delete": False})
    ended = await asyncio.to_thread(provision_process, AF_NATS_URL=server.url)

    assert 7 == ended.returncode
    assert "AF_DEAD.deny_delete" in ended.stdout + ended.stderr


def test_a_container_without_a_broker_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 4, after `AF_CONNECT_TIMEOUT`, and a reason; a bad setting is 2."""
    ended = provision_process(AF_NATS_URL="nats://127.0.0.1:9", AF_CONNECT_TIMEOUT="0.2")
    wrong = provision_process(AF_REPLICAS="nine")

    assert 4 == ended.returncode
    assert "mesh.unreachable" in ended.stdout + ended.stderr
    assert 2 == wrong.returncode
    assert "AF_REPLICAS" in wrong.stdout + wrong.stderr


def test_provisioning_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what it takes."""
    with pytest.raises(SystemExit) as ended:
        provisioning.main(["--help"])

    assert 0 == ended.value.code
    assert "AF_NATS_URL" in capsys.readouterr().out
