"""Logs: a JSON object a line, with the ids of the work in hand, and never a payload."""

import asyncio
import logging
import time
from datetime import timedelta

import msgspec
import pytest

from agentflow import logs
from agentflow.clock import parse_time
from agentflow.envelope import Sealed
from agentflow.payloads import GoalSubmitted
from agentflow.testing import envelope, goal
from tests.core.conftest import Lines

SECRET = "the customer's secret"


def sealed(index: int = 0) -> Sealed:
    """A goal with something in it that no log may show."""
    return goal("support", {"text": SECRET}, workflow_id=f"run-{index}", index=index)


def test_a_line_is_one_json_object(log_lines: Lines) -> None:
    """With event, level, time in UTC, the service and its incarnation, the logger, and the facts given."""
    logs.configure("planner", "life-1")

    logs.get("shell").info("message.stored", seq=7, subject="workflows.run-1.out")

    (line,) = log_lines()
    assert timedelta(0) == parse_time(line.pop("timestamp")).utcoffset()
    assert {
        "event": "message.stored",
        "level": "info",
        "service": "planner",
        "incarnation": "life-1",
        "component": "planner",
        "logger": "shell",
        "seq": 7,
        "subject": "workflows.run-1.out",
    } == line


def test_what_a_stranger_sent_cannot_break_a_line(log_lines: Lines) -> None:
    """Line ends, quotes and control characters are escaped; what is not JSON is shown as text."""
    logs.configure("planner", "life-1")

    logs.get("shell").warning('x"\n{"event": "forged"}', subject="a\r\nb\x00", value=object(), raw=b"\xff")

    (line,) = log_lines()
    assert 'x"\n{"event": "forged"}' == line["event"]
    assert "a\r\nb\x00" == line["subject"]
    assert line["value"].startswith("<object")


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_filters(level: str, events: list[str], log_lines: Lines) -> None:
    """What is below it is not written."""
    logs.configure("planner", "life-1", level)
    log = logs.get("shell")

    for each in ("debug", "info", "warning", "error"):
        getattr(log, each)(each)

    assert events == [line["event"] for line in log_lines()]


def test_the_ids_of_a_message_are_on_every_line_inside_the_block(log_lines: Lines) -> None:
    """Also on lines of other loggers, and no longer than the block."""
    logs.configure("planner", "life-1")
    log, message = logs.get("shell"), sealed()

    with logs.bound(message):
        log.info("inside")
        logs.get("other").info("inside too")
    log.info("outside")

    inside, too, outside = log_lines()
    ids = {
        "trace_id": message.envelope.trace_id,
        "span_id": message.envelope.span_id,
        "workflow_id": "run-0",
        "message_id": message.envelope.id,
    }
    assert ids.items() <= inside.items()
    assert ids.items() <= too.items()
    assert not ids.keys() & outside.keys()


def test_the_ids_are_gone_after_an_error(log_lines: Lines) -> None:
    """The next message's lines do not carry them."""
    logs.configure("planner", "life-1")

    with pytest.raises(RuntimeError), logs.bound(sealed()):
        raise RuntimeError
    logs.get("shell").info("next")

    assert "workflow_id" not in log_lines()[0]


async def test_messages_handled_at_once_keep_their_own_ids(log_lines: Lines) -> None:
    """Each task has its own binding, wherever they interleave."""
    logs.configure("planner", "life-1")
    turn = asyncio.Barrier(3)

    async def handle(index: int) -> None:
        with logs.bound(sealed(index)):
            for _ in range(3):
                await turn.wait()
                logs.get("shell").info("step", index=index)

    await asyncio.gather(*(handle(index) for index in range(3)))

    lines = log_lines()
    assert 9 == len(lines)
    assert all(line["workflow_id"] == f"run-{line['index']}" for line in lines)


def test_a_traceback_is_logged_without_local_variables(log_lines: Lines) -> None:
    """Locals hold payloads and secrets; type, message, file and line are enough."""
    logs.configure("planner", "life-1")

    def handle(message: Sealed, password: str) -> None:
        raise ValueError("cannot handle this")

    try:
        handle(sealed(), "pass" + "word-1")
    except ValueError:
        logs.get("shell").exception("message.failed")

    (line,) = log_lines()
    text = msgspec.json.encode(line).decode()
    assert "cannot handle this" == line["exception"][0]["exc_value"]
    assert "handle" in [frame["name"] for frame in line["exception"][0]["frames"]]
    assert SECRET not in text
    assert "password-1" not in text


def test_no_payload_is_bound(log_lines: Lines) -> None:
    """Of an envelope the ids go into the log, and nothing it carries."""
    logs.configure("planner", "life-1")
    message = envelope(GoalSubmitted("support", {"text": SECRET}), "workflows.run-1.in", metadata={"note": SECRET})

    with logs.bound(message):
        logs.get("shell").info("handled")

    assert SECRET not in str(log_lines())


def test_an_envelope_outside_a_run_has_an_empty_workflow_id(log_lines: Lines) -> None:
    """The member is there all the same, so that lines can be grouped by it."""
    logs.configure("runtime", "life-1")

    with logs.bound(envelope(GoalSubmitted("x"), "agents.greeter.in")):
        logs.get("shell").info("handled")

    assert "" == log_lines()[0]["workflow_id"]


def test_a_person_at_a_terminal_gets_text(capsys: pytest.CaptureFixture[str], log_lines: Lines) -> None:
    """The console form is not JSON, and says the same."""
    logs.configure("planner", "life-1", console=True)

    logs.get("shell").info("message.stored", seq=7)

    written = capsys.readouterr().err
    assert "message.stored" in written
    assert "seq" in written
    assert not written.startswith("{")
    assert [] == log_lines()


def test_nothing_goes_to_stdout(capsys: pytest.CaptureFixture[str], log_lines: Lines) -> None:
    """It belongs to results."""
    logs.configure("planner", "life-1")

    logs.get("shell").error("failed")

    captured = capsys.readouterr()
    assert "" == captured.out
    assert "failed" in captured.err
    assert [] == log_lines()


def test_configuring_again_forgets_the_first_service(log_lines: Lines) -> None:
    """Two services in one test process do not sign each other's lines."""
    logs.configure("planner", "life-1")
    logs.configure("runtime", "life-2")

    logs.get("shell").info("started")

    assert ("runtime", "life-2") == (log_lines()[0]["service"], "life-2")


def test_lines_of_libraries_have_the_same_form(log_lines: Lines) -> None:
    """They log by the standard library: warnings and errors come with the ids of what is in hand; chatter does not."""
    logs.configure("agentflow-planner", "life-1")

    with logs.bound(sealed()):
        logging.getLogger("nats.aio.client").info("chatter")
        logging.getLogger("nats.aio.client").warning("slow consumer %s", "x")
    try:
        raise ValueError("cannot")
    except ValueError:
        logging.getLogger("urllib3").exception("failed")

    first, second = log_lines()
    assert ("slow consumer x", "nats.aio.client", "warning") == (first["event"], first["logger"], first["level"])
    assert ("planner", "run-0", "run-0") == (first["component"], first["workflow_id"], first["correlation_id"])
    assert "timestamp" in second
    assert "cannot" == second["exception"][0]["exc_value"]


def test_secrets_are_hidden_in_every_part_of_a_line(log_lines: Lines) -> None:
    """In values by their key, in text by their form, in the text of an error, in lines of libraries, and those known."""
    logs.configure("agentflow-planner", "life-1", secrets=["hunter-22"])
    log = logs.get("shell")

    log.info("connecting", url="nats://app:CANARY1234@host", password="CANARY1234", nested={"token": "CANARY1234"})
    log.info("known: hunter-22")
    try:
        raise ValueError("refused: sk-CANARY12345678")
    except ValueError:
        log.exception("failed")
    logging.getLogger("lib").error("Bearer CANARY12345678")

    text = str(log_lines())
    assert "CANARY" not in text
    assert "hunter-22" not in text
    assert 6 <= text.count("[redacted]")


def test_a_line_costs_less_than_a_millisecond(log_lines: Lines) -> None:
    """Ids, redaction and all: the requirement's bound, by processor time, on the best of some rounds."""
    logs.configure("agentflow-planner", "life-1")
    log, rounds = logs.get("shell"), []
    with logs.bound(sealed()):
        for _ in range(5):
            began = time.thread_time()
            for number in range(100):
                log.info("run.decided", schema="run.advanced/1", state="clerk", status="running", seq=number)
            rounds.append((time.thread_time() - began) / 100)

    assert 500 == len(log_lines())
    assert min(rounds) < 0.001


def test_configuring_again_does_not_write_a_librarys_line_twice(log_lines: Lines) -> None:
    """One handler, however often."""
    for _ in range(3):
        logs.configure("agentflow-planner", "life-1")

    logging.getLogger("lib").error("once")

    assert 1 == len(log_lines())
