"""A broker that is away for a moment is waited for; what is no matter of time is told at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from agentflow.errors import Conflict, MeshError, NotStored, OutcomeUnknown, PublishFailed, ServerUnfit, Unreachable
from agentflow.mesh import patience
from agentflow.mesh.memory import MemoryTransport
from agentflow.mesh.patience import is_away, patiently


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryTransport]:
    """A broker, and pauses that do not take long."""
    monkeypatch.setattr(patience, "PAUSE", 0.001)
    yield MemoryTransport.named("tests-patience")
    MemoryTransport.forget("tests-patience")


class Answers:
    """Something to ask: raises what it is given, in order, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked = list(errors), 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


class Down(MemoryTransport):
    """A connection that is down, and maybe for good."""

    reason: str | None = None

    @property
    def connected(self) -> bool:
        return False

    @property
    def closed_reason(self) -> str | None:
        return self.reason


@pytest.mark.parametrize(
    "error",
    [Unreachable("away"), OutcomeUnknown("no answer"), NotStored("nobody listens", code="mesh.no_responders")],
)
async def test_what_is_a_matter_of_time_is_asked_again(error: Exception, broker: MemoryTransport) -> None:
    """Not connected, no answer in time, and a server whose JetStream is not up yet."""
    ask = Answers(error, error)

    assert "answer" == await patiently(broker, ask)
    assert 3 == ask.asked


@pytest.mark.parametrize(
    "error",
    [
        Conflict("somebody else"),
        PublishFailed("refused"),
        NotStored("no such stream"),
        ServerUnfit("too old", code="server.too_old"),
        ServerUnfit("no monitoring", code="server.not_provable"),
        KeyError("a mistake"),
    ],
)
async def test_everything_else_is_told_at_once(error: Exception, broker: MemoryTransport) -> None:
    """Waiting would not help."""
    ask = Answers(error)
    with pytest.raises(type(error)):
        await patiently(broker, ask)

    assert 1 == ask.asked


async def test_patience_has_an_end(broker: MemoryTransport) -> None:
    """Then the last error is told as it is."""
    ask = Answers(*[Unreachable(f"{number}") for number in range(10_000)])
    with pytest.raises(Unreachable):
        await patiently(broker, ask, patience=0.05)

    assert 1 < ask.asked < 10_000


async def test_a_connection_that_is_closed_for_good_is_not_waited_for() -> None:
    """It does not come back."""
    transport, ask = Down(), Answers(Unreachable("away"))
    transport.reason = "the client gave up"
    with pytest.raises(Unreachable):
        await patiently(transport, ask)

    assert 1 == ask.asked


@pytest.mark.parametrize(
    ("code", "away"), [("server.not_provable", True), ("server.too_old", False), ("server.not_durable", False)]
)
def test_a_monitoring_port_may_be_away_with_its_server(code: str, away: bool) -> None:
    """While the connection is down too; what a server says of itself is no matter of time."""
    found: dict[str, Any] = {"error": ServerUnfit("?", code=code), "transport": Down()}

    assert away == is_away(**found)


def test_an_error_of_the_mesh_is_not_away_by_itself(broker: MemoryTransport) -> None:
    """Only those that say so."""
    assert not is_away(MeshError("?"), broker)
