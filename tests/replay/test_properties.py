"""Whatever happens to a run, deciding it again makes the same bytes; whatever is done to its record shows."""

from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import assume, given, settings

from agentflow.mesh.transport import Message
from agentflow_planner.machine import Decided
from agentflow_streams.decisions import consumed_by, read_decision
from tests.replay.worlds import Lived, altered, arrival, life, replayed

WORDS = (
    "answer again large empty fail fatal signal fire cancel goal other junk garbage wait late back hold release twin"
)
EVENTS = st.lists(st.tuples(st.sampled_from(WORDS.split()), st.integers(0, 5)), max_size=25)

OUTPUTS = {"answer": {"again": False, "n": 1}, "again": {"again": True}, "large": {"again": False, "n": 11}}


def happen(world: Lived, event: str, number: int) -> None:
    """Let one thing happen to the run."""
    match event:
        case "answer" | "again" | "large" | "empty" if world.commands:
            world.answer(OUTPUTS.get(event, {}))
        case "fail" | "fatal" if world.commands:
            world.fail(retryable=event == "fail")
        case "late" if world.commands:
            world.answer({}, world.commands[0])
        case "signal":
            world.signal("go", n=number)
        case "fire" if world.state.timer is not None and not world.state.ended:
            world.fire()
        case "cancel":
            world.cancel()
        case "goal" | "other":
            world.submit(n=1 if event == "goal" else 2)
        case "junk" | "garbage":
            world.take("workflows.w-1.in", b"{" if event == "junk" else b'{"signal":"go"}')
        case "twin" if world.messages:
            world.take("workflows.w-1.in", world.messages[number % len(world.messages)].body)
        case "wait" | "back":
            world.now += timedelta(seconds=3 if event == "wait" else -2)
        case "hold":
            world.holding = not world.holding
        case "release":
            world.release(number)


def lived(events: list[tuple[str, int]]) -> Lived:
    """A run to which these things happened; it may have begun before its goal came."""
    world = life()
    if not events or events[0][1] < 4:
        world.submit(n=1)
    for event, number in events:
        happen(world, event, number)
    return world


def decisions(world: Lived) -> list[Message]:
    """The stored decisions of a run."""
    return [message for message in world.messages if message.subject.endswith(".out")]


@given(EVENTS)
@settings(deadline=None)
def test_every_history_is_decided_again_byte_for_byte(events: list[tuple[str, int]]) -> None:
    """Inputs held back and taken out of order, junk, twins, refusals, cancels, retries, signals, timers: all match."""
    world = lived(events)
    outcome = replayed(world.histories)

    assert ("matched", "", None) == (outcome.verdict, outcome.detail, outcome.divergence)
    assert len(world.log) == outcome.decisions == outcome.matched
    assert len(world.commands) == outcome.commands
    assert world.state.ended == outcome.ended


@given(EVENTS)
@settings(deadline=None)
def test_timers_are_made_again_where_they_are_stored_no_more(events: list[tuple[str, int]]) -> None:
    """A fired timer is no evidence: without it, the decision that armed it says what it was."""
    world = lived(events)
    outcome = replayed(altered(world.histories, lambda m: None if m.stream == "AF_TIMERS" else m))

    assert "matched" == outcome.verdict, outcome
    assert len(world.log) == outcome.matched


@given(EVENTS, st.data())
@settings(deadline=None)
def test_a_run_without_one_of_its_inputs_never_matches(events: list[tuple[str, int]], data: st.DataObject) -> None:
    """Whichever input of a decision is gone, the run is told as not replayable, with a code."""
    world = lived(events)
    consumed = {
        each.seq
        for message in decisions(world)
        if not isinstance(read := read_decision(arrival(message)), str)
        for each in consumed_by(read.payload)
        if each.subject.startswith("workflows.")
    }
    assume(consumed)
    gone = data.draw(st.sampled_from(sorted(consumed)))
    outcome = replayed(altered(world.histories, lambda m: None if (m.stream, m.seq) == ("AF_MESSAGES", gone) else m))

    assert "matched" != outcome.verdict
    assert "input.missing" == outcome.code
    assert outcome.matched < outcome.decisions


@given(EVENTS, st.data())
@settings(deadline=None)
def test_a_decision_with_any_byte_changed_never_matches(events: list[tuple[str, int]], data: st.DataObject) -> None:
    """One byte of one decision, wherever: the run diverges, or cannot be followed."""
    world = lived(events)
    assume(decisions(world))
    victim = data.draw(st.sampled_from(decisions(world)))
    place = data.draw(st.integers(0, len(victim.body) - 1))
    changed = bytearray(victim.body)
    changed[place] ^= data.draw(st.integers(1, 255))

    def edit(message: Message) -> Message:
        return message if message.seq != victim.seq or message.stream != victim.stream else _with(message, changed)

    outcome = replayed(altered(world.histories, edit))
    assert "matched" != outcome.verdict
    assert outcome.matched < outcome.decisions


@given(EVENTS, st.data())
@settings(deadline=None)
def test_a_decision_that_is_cut_out_leaves_a_gap(events: list[tuple[str, int]], data: st.DataObject) -> None:
    """All but the last of a chain: of a tail that was cut off nothing here can tell, and the documentation says so."""
    world = lived(events)
    stored = decisions(world)
    chains = [read.sealed.envelope.chain for m in stored if not isinstance(read := read_decision(arrival(m)), str)]
    inner = [message for message, chain, later in zip(stored, chains, chains[1:], strict=False) if chain == later]
    assume(inner)
    gone = data.draw(st.sampled_from(inner))
    outcome = replayed(altered(world.histories, lambda m: None if m is not gone and m == gone else m))

    assert "matched" != outcome.verdict
    assert outcome.code in ("history.beginning_missing", "history.gap")


@given(EVENTS)
@settings(deadline=None)
def test_what_is_held_back_is_pending_and_no_divergence(events: list[tuple[str, int]]) -> None:
    """Inputs a planner has not come to yet change nothing: the run matches as far as it has come."""
    world = lived(events)
    world.holding = True
    world.signal("go", n=1)
    outcome = replayed(world.histories)

    assert "matched" == outcome.verdict
    assert outcome.pending >= 1
    assert isinstance(world.decide_about(world.held[-1]), Decided)


def _with(message: Message, body: bytearray) -> Message:
    return Message(message.stream, message.seq, message.subject, bytes(body), message.time)
