"""What happens to a process, told to people and to programs."""

import json
import signal

import pytest

from agentflow.local.events import ProcessEvent, signal_name


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            ProcessEvent("ended", "runtime-2", exit_code=-9, pause=0.5, detail="x.log"),
            "runtime-2 was killed by SIGKILL: starting it again in 0.5 s, see x.log",
        ),
        (
            ProcessEvent("ended", "nats-server", exit_code=1, pause=0.0, detail="x.log"),
            "nats-server ended by itself with 1: starting it again, see x.log",
        ),
        (ProcessEvent("starting", "planner", pid=7), "planner is started again (pid 7)"),
        (ProcessEvent("up", "planner", pid=7, down=1.25), "planner is up again after 1.2 s (pid 7)"),
        (
            ProcessEvent("failed", "nats-server", pause=1.0, detail="no room"),
            "nats-server did not start: no room; starting it again in 1 s",
        ),
    ],
)
def test_an_event_is_one_sentence(event: ProcessEvent, sentence: str) -> None:
    """It says what ended it, how long the pause is, and when it is up again."""
    assert sentence == event.sentence


def test_an_event_is_one_json_object() -> None:
    """What is not known is left out; the signal has its name beside the exit code."""
    ended = ProcessEvent("ended", "runtime", exit_code=-signal.SIGTERM, pause=0.5, detail="x.log").as_json()

    assert {
        "event": "ended",
        "process": "runtime",
        "exit_code": -15,
        "pause": 0.5,
        "detail": "x.log",
        "signal": "SIGTERM",
    } == json.loads(json.dumps(ended))
    assert {"event": "up", "process": "p", "pid": 1, "down": 0.0} == ProcessEvent("up", "p", pid=1, down=0.0).as_json()


@pytest.mark.parametrize(("code", "name"), [(0, None), (3, None), (None, None), (-9, "SIGKILL"), (-99, "signal 99")])
def test_only_a_signal_has_a_name(code: int | None, name: str | None) -> None:
    """An exit code of its own is no signal, and a signal nobody knows keeps its number."""
    assert name == ProcessEvent("ended", "p", exit_code=code).signal


def test_a_known_signal_is_named() -> None:
    """By the name people know."""
    assert "SIGSTOP" == signal_name(signal.SIGSTOP)
