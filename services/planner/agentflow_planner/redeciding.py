"""The planner's side of replay: a run decided again from its record (entry point `fsm` of `agentflow.deciders`).

The same `decide`, the same sealing and the same fold as the shell uses, given what is recorded: the input's stored bytes
and time, the definition by its hash, the engine by its name and version. What a planner asked others for is taken from
the record too: the answer of the catalog, where it refused a goal, and the time at which a timer was stored that is
stored no more. Neither a broker nor a clock can be reached from here.
"""

from datetime import datetime

from agentflow.clock import parse_time
from agentflow.envelope import Sealed, sha256_hex
from agentflow.errors import AgentflowError, EvidenceError, InputError, SchemaError
from agentflow.mesh.transport import Message
from agentflow.payloads import Consumed, Decision, DefinitionRef, GoalAccepted, GoalRejected, GoalSubmitted
from agentflow.schemas import open_claim
from agentflow_planner.arrivals import needs_artifact, read_input, refuse_arrival
from agentflow_planner.catalog import CHOICES
from agentflow_planner.conditions import Engine, engine_for
from agentflow_planner.histories import identified
from agentflow_planner.inputs import check_input
from agentflow_planner.machine import Decided, Ignored, Verdict, decide
from agentflow_planner.parsing import parse_definition
from agentflow_planner.plan import Plan, compile_plan
from agentflow_planner.runs import Input, Problem, RunState, evolve, key_of
from agentflow_planner.runs import Recorded as RecordedPayload
from agentflow_planner.sealing import seal_commands, seal_decision, seal_timer
from agentflow_streams.deciders import Arrival, Recorded, Redecided, Unreplayable

TIMERS = "AF_TIMERS"


class Deciding:
    """Compiled definitions, shared by all runs that are decided again."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._plans: dict[tuple[str, str], Plan] = {}

    def rerun(self, workflow_id: str) -> "FsmRerun":
        """A run of which nothing has been decided yet."""
        return FsmRerun(self, workflow_id)

    def plan(self, ref: DefinitionRef, source: bytes | None) -> Plan | Unreplayable:
        """The definition a run keeps to, compiled by the engine it was begun with."""
        engine = self._engine(ref)
        if isinstance(engine, Unreplayable):
            return engine
        if source is None:
            return Unreplayable("definition.missing", f"definition {ref.name}@{ref.version} is not stored any more")
        if sha256_hex(source) != ref.sha256:
            return Unreplayable("definition.altered", f"definition {ref.name}@{ref.version} is not what was applied")
        if found := self.known(ref):
            return found
        try:
            plan = compile_plan(parse_definition(source, f"sha256-{ref.sha256}"), ref.sha256, engine)
        except AgentflowError as error:
            return Unreplayable("definition.unusable", f"definition {ref.name}@{ref.version}: {error.message[:500]}")
        self._plans[ref.sha256, ref.engine] = plan
        return plan

    def known(self, ref: DefinitionRef) -> Plan | None:
        """A plan that is compiled already."""
        return self._plans.get((ref.sha256, ref.engine))

    def _engine(self, ref: DefinitionRef) -> Engine | Unreplayable:
        name = ref.engine.partition("/")[0]
        if name not in self._engines:
            try:
                self._engines[name] = engine_for(CHOICES[name])
            except (KeyError, AgentflowError):
                return Unreplayable("condition.engine_missing", f"condition engine {ref.engine} is not installed here")
        engine = self._engines[name]
        if ref.engine != f"{engine.name}/{engine.version}":
            here = f"{engine.name}/{engine.version}"
            return Unreplayable("condition.engine_version", f"the run used {ref.engine}; {here} is installed here")
        return engine


class FsmRerun:
    """One run, folded along its record."""

    def __init__(self, deciding: Deciding, workflow_id: str) -> None:
        self._deciding = deciding
        self._state = RunState(workflow_id)
        self._plan: Plan | None = None
        self._armed: Sealed | None = None
        """The timer that the run has armed, made again."""

    def redecide(self, recorded: Recorded, given: Arrival | None, definition: bytes | None) -> Redecided | Unreplayable:
        """Decide again about the input of the next decision, then take the decision in as it is recorded."""
        payload = recorded.payload
        assert isinstance(payload, RecordedPayload)
        if given is None and not payload.consumed[0].subject.startswith("timers."):
            self._state = evolve(self._state, recorded.sealed, payload, {}, recorded.arrival.seq)
            return Redecided(None, reason="an earlier decision is about it")
        taken = self._input(given) if given is not None else self._fired(payload.consumed[0], recorded)
        if isinstance(taken, Unreplayable):
            return taken
        taken = identified(self._state, taken)
        if taken.problem is not None and given is not None and given.trouble[0] and not _refused(payload):
            return Unreplayable("input.payload_missing", f"{given.trouble[1]} (input {taken.ref.id})")
        plan = self._plan_for(payload, taken, definition)
        if isinstance(plan, Unreplayable):
            return plan
        before = self._state
        verdict = self._decided(before, taken, plan)
        made = _sealed(before, taken, verdict)
        sends = self._evolve(recorded, payload, taken, made, verdict)
        if isinstance(verdict, Ignored):
            return Redecided(None, reason=verdict.reason)
        return Redecided(made, verdict.recorded, sends=sends)

    def would_decide(self, given: Arrival) -> bool:
        """Whether there is something to record about an input that no decision has consumed."""
        taken = self._input(given)
        if key_of(taken.ref) in self._state.consumed or (taken.kind == "goal" and not self._state.exists):
            return key_of(taken.ref) not in self._state.consumed
        if taken.kind == "junk" and not self._state.exists and not taken.ref.subject.endswith(".in"):
            return False
        return isinstance(decide(self._state, identified(self._state, taken), self._plan), Decided)

    # --- what comes in ---------------------------------------------------------------------------------------------

    def _input(self, given: Arrival) -> Input:
        """The input a stored message is."""
        message = _message(given, given.time)
        sealed = needs_artifact(message)
        if sealed is None:
            return read_input(message)
        if given.artifact is None:
            return refuse_arrival(message, Problem(given.trouble[0], given.trouble[1][:500]))
        try:
            return read_input(message, open_claim(sealed.envelope, given.artifact))
        except (InputError, EvidenceError) as error:
            return refuse_arrival(message, Problem(error.error_code, error.message[:500]))

    def _fired(self, consumed: Consumed, recorded: Recorded) -> Input | Unreplayable:
        """The run's timer as the server stored it when it was due: the decision that armed it says what it was."""
        armed = self._armed
        if armed is None or armed.envelope.id != consumed.id:
            return Unreplayable("input.missing", f"timer message {consumed.id} is not stored any more")
        subject, moment = armed.envelope.subject, parse_time(recorded.sealed.envelope.ts)
        return read_input(Message(TIMERS, consumed.seq, subject, armed.body, moment))

    def _plan_for(
        self, payload: RecordedPayload, taken: Input, definition: bytes | None
    ) -> Plan | Problem | Unreplayable | None:
        """The run's definition, or what the catalog said when there was none."""
        if self._state.exists:
            return self._plan
        if isinstance(payload, GoalAccepted):
            plan = self._deciding.plan(payload.definition, definition)
            if isinstance(plan, Plan) and isinstance(taken.payload, GoalSubmitted):
                return _fit(plan, taken.payload) or plan
            return plan
        if isinstance(payload, GoalRejected) and taken.kind == "goal":
            return Problem(payload.code, payload.message, payload.found, payload.allowed)
        return None

    # --- deciding, and going on as it is recorded ------------------------------------------------------------------

    def _decided(self, before: RunState, taken: Input, plan: Plan | Problem | None) -> Verdict:
        if key_of(taken.ref) in before.consumed:
            return Ignored(f"decision {before.consumed[key_of(taken.ref)]} consumed it before")
        return decide(before, taken, plan)

    def _evolve(
        self, recorded: Recorded, payload: RecordedPayload, taken: Input, made: Sealed | None, verdict: Verdict
    ) -> tuple[Sealed, ...]:
        """Fold on: by what is recorded, or by what was made again where the record was edited."""
        sealed = recorded.sealed
        if not recorded.intact and made is not None and isinstance(verdict, Decided):
            sealed, payload = made, verdict.recorded
        if isinstance(payload, GoalAccepted) and self._plan is None:
            self._plan = self._deciding.known(payload.definition)
        inputs = {key_of(payload.consumed[0]): taken}
        self._state = evolve(self._state, sealed, payload, inputs, recorded.arrival.seq)
        if not isinstance(payload, Decision):
            return ()
        return self._sent(sealed, payload)

    def _sent(self, sealed: Sealed, payload: Decision) -> tuple[Sealed, ...]:
        """The commands and the timer of a decision, made again; what it lists was compared with the decision itself."""
        try:
            if payload.timer is not None:
                self._armed = seal_timer(self._state, sealed, payload.timer).sealed
            if payload.commands and self._plan is not None:
                return tuple(command for command, _ in seal_commands(self._plan, self._state, sealed, payload))
        except AgentflowError:
            return ()  # the record lists other ones than its decision makes: that is told of the decision
        return ()


def _message(given: Arrival, time: datetime) -> Message:
    return Message(given.stream, given.seq, given.subject, given.body, time)


def _refused(payload: RecordedPayload) -> bool:
    return not isinstance(payload, Decision)


def _fit(plan: Plan, goal: GoalSubmitted) -> Problem | None:
    """Why a goal does not lead to this definition, as the catalog would say it."""
    definition = plan.definition
    if goal.goal not in (definition.name, plan.name):
        return Problem("definition.unknown", f"goal {goal.goal[:80]!r} does not name {plan.name}", goal.goal[:200])
    try:
        check_input(definition.input_schema, goal.input)
    except SchemaError as error:
        return Problem(error.error_code, error.message[:500], str(error.fields.get("found", ""))[:200])
    return None


def _sealed(before: RunState, taken: Input, verdict: Verdict) -> Sealed | None:
    return seal_decision(before, taken, verdict.recorded) if isinstance(verdict, Decided) else None
