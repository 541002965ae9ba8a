"""The state machine's step function: `decide(state, input, plan) -> Verdict`. Pure (architecture, section 1).

A decision enters at most one state. Everything it needs comes in with the input: the time is the input's server time,
randomness comes from the run's seed, ids are derived.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from agentflow import subjects
from agentflow.clock import format_time
from agentflow.envelope import encode_payload, sha256_hex
from agentflow.errors import Blame
from agentflow.ids import derive_id
from agentflow.payloads import (
    CancelRequested,
    Decision,
    Evaluated,
    Failure,
    GoalAccepted,
    GoalRejected,
    GoalSubmitted,
    InputRejected,
    RunAdvanced,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSignalled,
    StepCompleted,
    StepFailed,
    TimerDue,
    TimerSet,
    ToolCompleted,
    ToolFailed,
)
from agentflow_planner.errors import ConditionError
from agentflow_planner.plan import Plan
from agentflow_planner.runs import (
    Input,
    Problem,
    Recorded,
    RunState,
    absorb,
    apply,
    decision_time,
    goal_key,
    key_of,
    later,
    place_for,
)
from agentflow_planner.sending import OWNER_KIND, PRODUCER, commands_of, next_due, timer_payload

D = TypeVar("D", bound=Decision)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision to record."""

    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to record: the input changes nothing."""

    reason: str


Verdict = Decided | Ignored

TOOL_MAKER = "executor"
"""Whom the results of tool calls come from."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What one call of `decide` is about."""

    plan: Plan
    state: RunState
    given: Input
    ts: str
    decision_id: str


def decision_id(given: Input) -> str:
    """The id of the decision about an input, whoever makes it."""
    return derive_id(given.ref.id, PRODUCER, "decision")


def decide(state: RunState, given: Input, plan: Plan | Problem | None) -> Verdict:
    """What to record about an input; `plan` is the run's definition, or why there is none (for a goal)."""
    if given.kind == "junk" and given.problem is not None:
        return refuse(state, given, given.problem)
    if given.kind == "goal":
        return _decide_goal(state, given, plan)
    if not state.exists:
        unknown = Problem("run.unknown", f"no run {state.workflow_id} exists", given.ref.schema, "a goal first")
        return refuse(state, given, unknown) if given.kind in ("signal", "cancel") else Ignored("run.unknown")
    if state.ended:
        ended = Problem("run.ended", f"run {state.workflow_id} has ended ({state.status})", given.ref.schema, "")
        return refuse(state, given, ended) if given.kind in ("signal", "cancel") else Ignored("run.ended")
    if not isinstance(plan, Plan):
        return Ignored("plan.missing")
    return _decide_running(_moment(plan, state, given))


def refuse(state: RunState, given: Input, problem: Problem) -> Decided:
    """Refuse an input: terminal where no run exists under the id, without effect where one does."""
    rejected = InputRejected if state.exists else GoalRejected
    return Decided(
        rejected(
            consumed=(given.ref,),
            code=problem.code,
            message=problem.message,
            found=problem.found,
            allowed=problem.allowed,
        )
    )


# --- goals ---------------------------------------------------------------------------------------------------------


def _decide_goal(state: RunState, given: Input, plan: Plan | Problem | None) -> Verdict:
    goal = given.payload
    if not isinstance(goal, GoalSubmitted):
        return Ignored("goal.malformed")
    if state.exists:
        if goal_key(goal) == state.goal:
            return Ignored("goal.same")
        taken = Problem(
            "run.id_taken", f"run {state.workflow_id} has another goal", goal.goal[:200], "the same goal, or a new id"
        )
        return refuse(state, given, taken)
    if not isinstance(plan, Plan):
        return refuse(
            state, given, plan or Problem("definition.unknown", f"no definition {goal.goal[:80]!r}", goal.goal[:200])
        )
    now = _moment(plan, state, given)
    core = GoalAccepted(
        consumed=(given.ref,),
        state=plan.definition.initial_state,
        reason="started",
        attempt=1,
        definition=plan.ref,
        seed=hashlib.sha256(f"{given.ref.id}|{state.workflow_id}".encode()).hexdigest()[:32],
    )
    return _enter(now, core)


# --- a run that is under way ---------------------------------------------------------------------------------------


def _moment(plan: Plan, state: RunState, given: Input) -> _Moment:
    return _Moment(plan, state, given, format_time(decision_time(state, given)), decision_id(given))


def _decide_running(now: _Moment) -> Verdict:
    state, given = now.state, now.given
    match given.payload:
        case CancelRequested(reason=reason):
            failure = Failure(code="run.cancelled", type="Cancelled", message=reason, blame="input", retryable=False)
            return Decided(_as(RunCancelled, _core(now, "cancelled", state.state), error=failure))
        case RunSignalled(name=name):
            if state.waiting == "signal" and state.awaits == name:
                return _succeed(now, "signal")
            return Decided(_core(now, "noted", state.state))
        case TimerDue():
            return _decide_timer(now)
    if state.command is None or state.command.id != given.command_id:
        return Ignored("result.late")
    maker = now.plan.state(state.command.state).agent or TOOL_MAKER
    if given.sender != maker:
        forged = Problem("result.wrong_sender", "the result is not from whom was asked", given.sender[:200], maker)
        return refuse(state, given, forged)
    match given.payload:
        case StepCompleted() | ToolCompleted():
            return _succeed(now, "completed")
        case StepFailed(error=failure) | ToolFailed(error=failure):
            return _failed(now, failure)
    return Ignored("input.unexpected")


def _core(now: _Moment, reason: str, state: str, attempt: int | None = None) -> RunAdvanced:
    """A decision of this moment, before it is known what it sends."""
    return RunAdvanced(
        consumed=(now.given.ref,),
        state=state,
        previous=now.state.state,
        reason=reason,
        attempt=now.state.attempt if attempt is None else attempt,
    )


def _succeed(now: _Moment, reason: str) -> Verdict:
    """The step is done: find the way on."""
    probe = _core(now, reason, now.state.state)
    seen = absorb(now.state, probe, {key_of(now.given.ref): now.given})
    conditions: tuple[Evaluated, ...] = ()
    try:
        to, conditions = now.plan.next_state(seen)
    except ConditionError as error:
        return _fail_state(now, probe, now.state.state, _condition_failure(error))
    if to is None:
        text = f"no transition of state {now.state.state!r} holds"
        failure = Failure(code="transition.none", type="NoTransition", message=text, blame="input", retryable=False)
        return _fail_state(now, replace(probe, conditions=conditions), now.state.state, failure)
    return _enter(now, replace(_core(now, reason, to, attempt=1), conditions=conditions))


def _failed(now: _Moment, failure: Failure) -> Verdict:
    """The step failed: try again later, or take the way of errors."""
    state, step = now.state, now.plan.state(now.state.state)
    if not (failure.retryable and state.attempt < step.retry.max_attempts):
        return _fail_state(now, _core(now, "error", state.state), state.state, failure)
    core = replace(
        _core(now, "retry", state.state, attempt=state.attempt + 1),
        retry_at=later(now.ts, _backoff(now, step.retry.backoff)),
        error=failure,
    )
    return Decided(_with_timer(now, core))


def _backoff(now: _Moment, base: float) -> float:
    """Seconds until the next attempt: exponential with full jitter, drawn from the run's seed."""
    draw = hashlib.sha256(f"{now.state.seed}|{now.decision_id}|backoff".encode()).digest()
    fraction = int.from_bytes(draw[:8], "big") / 2**64
    return float(base * 2 ** (now.state.attempt - 1) * fraction)


def _decide_timer(now: _Moment) -> Verdict:
    """A timer fired; what is due by now?"""
    state, plan = now.state, now.plan
    if state.timer is None or state.timer.id != now.given.ref.id:
        return Ignored("timer.superseded")
    if state.timer.payload_sha256 != sha256_hex(encode_payload(now.given.payload)):
        return Ignored("timer.forged")
    if now.ts >= later(state.started, plan.definition.timeout):
        return Decided(
            _end_failed(now, _timeout("run.timeout", "the run", plan.definition.timeout, "mesh"), state.state)
        )
    if state.waiting == "retry" and now.ts >= state.retry_at:
        return _dispatch(now, _core(now, "resume", state.state), hops=0)
    if state.waiting == "signal" and state.awaits in state.signals:
        return _succeed(now, "signal")
    timeout = plan.state(state.state).timeout
    if state.waiting != "retry" and now.ts >= later(state.entered, timeout):
        code = "step.timeout" if state.waiting == "step" else "signal.timeout"
        blame: Blame = "tool" if plan.state(state.state).tool else "agent" if state.waiting == "step" else "input"
        return _failed(now, _timeout(code, f"state {state.state!r}", timeout, blame))
    return Decided(_with_timer(now, _core(now, "rearmed", state.state)))


def _timeout(code: str, what: str, seconds: float, blame: Blame) -> Failure:
    text = f"{what} did not end within {seconds:g} s"
    return Failure(code=code, type="Timeout", message=text, blame=blame, retryable=code == "step.timeout")


# --- entering states and ending ------------------------------------------------------------------------------------


def _enter(now: _Moment, core: Decision, hops: int = 0) -> Decided:
    """Finish a decision that enters `core.state`: end there, or begin to wait there."""
    definition = now.plan.definition
    if definition.is_final(core.state):
        return _complete(now, core)
    if now.state.steps >= definition.max_steps:
        text = f"the run entered {now.state.steps} states; max_steps is {definition.max_steps}"
        failure = Failure(code="run.max_steps", type="MaxSteps", message=text, blame="input", retryable=False)
        return Decided(_end_failed(now, failure, core.state, core))
    return _dispatch(now, core, hops)


def _dispatch(now: _Moment, core: Decision, hops: int) -> Decided:
    """Add the commands of the state and the timer; a step input that cannot be made fails that state."""
    inputs = {key_of(now.given.ref): now.given}
    after = apply(now.state, core, inputs, now.ts)
    try:
        commands = tuple(out.command for out in commands_of(now.plan, after, now.decision_id))
    except ConditionError as error:
        return _fail_state(now, core, core.state, _condition_failure(error), hops + 1)
    core = replace(core, commands=commands, waits_for=now.plan.state(core.state).signal)
    return Decided(_with_timer(now, core))


def _complete(now: _Moment, core: Decision) -> Decided:
    seen = absorb(now.state, core, {key_of(now.given.ref): now.given})
    try:
        output = now.plan.run_output(seen)
    except ConditionError as error:
        return Decided(_end_failed(now, _condition_failure(error), core.state, core))
    if isinstance(core, GoalAccepted):
        return _refused_goal(now, "definition.initial_is_final", "the initial state is final: nothing would be done")
    return Decided(_as(RunCompleted, core, output=output))


def _fail_state(now: _Moment, core: Decision, failing: str, failure: Failure, hops: int = 0) -> Decided:
    """A state failed for good: go where its `on_error` leads, or end the run."""
    on_error = now.plan.state(failing).on_error
    if not on_error or hops > len(now.plan.definition.states):
        return Decided(_end_failed(now, failure, failing, core))
    core = replace(
        core, state=on_error, previous=failing, reason="error", attempt=1, error=failure, commands=(), waits_for=""
    )
    return _enter(now, core, hops)


def _end_failed(now: _Moment, failure: Failure, state: str, core: Decision | None = None) -> Recorded:
    """The end of a run in failure; a goal whose first state already fails is refused instead."""
    if isinstance(core, GoalAccepted):
        return _refused_goal(now, failure.code, failure.message).recorded
    base = core if core is not None else _core(now, "error", state)
    return _as(RunFailed, base, state=state, error=failure, commands=(), timer=None)


def _refused_goal(now: _Moment, code: str, message: str) -> Decided:
    return refuse(now.state, now.given, Problem(code, message))


def _as(kind: type[D], core: Decision, **more: Any) -> D:
    """The same decision as another kind of decision."""
    members: dict[str, Any] = {name: getattr(core, name) for name in Decision.__struct_fields__}
    return kind(**{**members, **more})


def _condition_failure(error: ConditionError) -> Failure:
    return Failure(
        code=error.error_code, type=type(error).__name__, message=error.message, blame="input", retryable=False
    )


# --- the run's one timer -------------------------------------------------------------------------------------------


def _with_timer(now: _Moment, core: Decision) -> Decision:
    """Arm the run's timer, unless the one that is armed fires early enough: that one is re-armed when it does."""
    after = apply(now.state, core, {key_of(now.given.ref): now.given}, now.ts)
    due = next_due(now.plan, after)
    if after.timer is not None and after.timer.due <= due:
        return core
    payload = timer_payload(due, after.state)
    place = place_for(now.state, now.given).seq
    timer = TimerSet(
        id=derive_id(now.decision_id, PRODUCER, "timer"),
        set_subject=subjects.timer_set(OWNER_KIND, after.workflow_id, place),
        payload_sha256=sha256_hex(encode_payload(payload)),
        due=due,
    )
    return replace(core, timer=timer)
