"""One tool call, from its delivery to its answer: the shell around `ledger.decide`.

`handle` asks the ledger what to do, does it, records it, and asks again until there is an outcome to answer with. It is
safe to run any number of times, by any number of executors, and to be killed anywhere: the crash points
`executor.after_intent`, `executor.after_effect`, `executor.after_outcome` and `executor.after_result` name the places
between the steps.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from agentflow import crash, logs
from agentflow.artifacts import check_in, check_out, check_out_sent
from agentflow.clock import Clock, format_time
from agentflow.errors import Conflict, EvidenceError, InputError, MeshError
from agentflow.mesh.deadletters import write_dead_letter
from agentflow.mesh.publishing import store_result
from agentflow.mesh.transport import Delivery, Objects, Transport
from agentflow.payloads import AuditIntent, AuditOutcome, AuditReconciled, Failure, ToolCompleted
from agentflow.registry import Effect
from agentflow_executor import ledger
from agentflow_executor.admission import admit, invalid_output
from agentflow_executor.audit import EXECUTOR, answer
from agentflow_executor.blocking import BreakerBoard
from agentflow_executor.catalog import Catalog, CatalogTool
from agentflow_executor.execution import Execution, Finding, judge, judge_check
from agentflow_executor.intake import Call, Request, open_call, read_request
from agentflow_executor.ledger import Hand, Ledger, Situation, decide
from agentflow_executor.profile import ExecProfile, ExecProfileCompiler, StaticProfileCompiler
from agentflow_executor.sandbox import Job, Mode, Sandbox
from agentflow_executor.trail import Trail, append, empty_trail, read_trail
from agentflow_executor.watching import called, executing

START_ALLOWANCE = timedelta(seconds=1)
"""Time between an intent and the start of its child that is not taken from the tool's own."""

CHECKS = 3
"""How often a check that does not answer is asked before its call ends as unknown."""

CHECK_PAUSE = 0.5
"""Seconds between two of them."""


@dataclass(frozen=True, slots=True)
class Case:
    """A call, and what this executor knows about it."""

    call: Call
    request: Request
    tool: CatalogTool | None
    situation: Situation


class CallHandler:
    """Handles deliveries of tool calls."""

    def __init__(
        self,
        transport: Transport,
        objects: Objects,
        catalog: Catalog,
        sandbox: Sandbox,
        clock: Clock,
        log: Any,
        compiler: ExecProfileCompiler | None = None,
    ) -> None:
        self._transport, self._objects, self._catalog = transport, objects, catalog
        self._sandbox, self._clock, self._log = sandbox, clock, log
        self._compiler = compiler or StaticProfileCompiler()
        self._breakers = BreakerBoard(transport)

    async def handle(self, delivery: Delivery) -> None:
        """See one call to its answer; returning means that it may be acknowledged, or was given back until later.

        Raises `InputError` or `EvidenceError` for a message that can never be handled, and `MeshError`.
        """
        call = open_call(delivery.message.body, delivery.message.subject)
        with logs.bound(call.sealed):
            request = read_request(call, await check_out_sent(self._objects, call.sealed.envelope))
            case = self._case(call, request)
            trail = await self._trail(case, delivery)
            settled = await self._settle(case, trail)
            if isinstance(settled, ledger.Wait):
                delay = max(0.05, (settled.until - self._clock.now()).total_seconds())
                self._log.info("call.waiting", tool=request.tool, seconds=delay)
                await delivery.nak(delay)
                return
            await self._answer(call, settled)

    async def _trail(self, case: Case, delivery: Delivery) -> Trail:
        """What was done about the call.

        A first delivery may skip the look where an intent is stored before anything is done: should all of history be
        delivered again, that conflicts. A `pure` tool has no intent to conflict.
        """
        if delivery.deliveries == 1 and case.situation.effect != "pure":
            return empty_trail(case.call)
        return await read_trail(self._transport, case.call)

    async def give_up(self, delivery: Delivery, code: str, reason: str) -> None:
        """Write the dead letter, and give the caller an answer where the message is a call that has one."""
        await write_dead_letter(self._transport, delivery, EXECUTOR, EXECUTOR, code, reason)
        try:
            call = open_call(delivery.message.body, delivery.message.subject)
        except InputError:
            return
        with logs.bound(call.sealed):
            mesh = code in ("delivery.exhausted", "ledger.damaged")
            failure = Failure(code, "GivenUp", reason[:2000], "mesh" if mesh else "input", retryable=False)
            try:
                await self._answer(call, await self._abandon(call, failure))
            except (EvidenceError, Conflict) as error:  # the letter says it; there is nobody else to tell
                self._log.exception("call.unanswered", code=error.error_code)

    # --- what to do ------------------------------------------------------------------------------------------------

    def _case(self, call: Call, request: Request) -> Case:
        tool = self._catalog.tools.get(request.tool)
        effect: Effect = tool.declaration.effect if tool else "pure"
        situation = Situation(
            request.tool,
            request.input_sha256,
            effect,
            checkable=tool is not None and tool.checkable,
            deadline=request.deadline,
            principal=request.principal,
            tool_version=tool.declaration.version if tool else "",
            permissions=tool.declaration.permissions if tool else (),
            input_bytes=request.input_bytes,
        )
        return Case(call, request, tool, situation)

    async def _settle(self, case: Case, trail: Trail) -> Trail | ledger.Wait:
        """Do what the ledger says until there is an outcome, or somebody else has to be waited for."""
        hand: Hand | None = None
        while True:
            action = decide(trail.ledger, case.situation, self._clock.now(), hand)
            try:
                match action:
                    case ledger.Answer():
                        return trail
                    case ledger.Wait():
                        return action
                    case ledger.Conclude(outcome):
                        trail = await self._conclude(case.call, trail, outcome)
                    case ledger.Check(execution):
                        trail = await self._reconcile(case, trail, execution)
                    case ledger.Run():
                        done = await self._run(case, trail, action)
                        if isinstance(done, ledger.Wait):
                            return done
                        trail, hand = done
            except Conflict:
                self._log.info("call.contended", tool=case.request.tool)
                trail = await read_trail(self._transport, case.call)

    async def _append(self, call: Call, trail: Trail, record: ledger.Record, index: int) -> Trail:
        return await append(self._transport, call, trail, record, index, self._clock.now())

    async def _conclude(self, call: Call, trail: Trail, outcome: AuditOutcome) -> Trail:
        trail = await self._append(call, trail, outcome, 0)
        code = outcome.error.code if outcome.error else ""
        called(outcome, self._catalog)
        self._log.info("call.concluded", tool=outcome.tool, status=outcome.status, code=code)
        crash.point("executor.after_outcome")
        return trail

    # --- running ---------------------------------------------------------------------------------------------------

    async def _run(self, case: Case, trail: Trail, action: ledger.Run) -> tuple[Trail, Hand | None] | ledger.Wait:
        """Admit the call, write the intent where there has to be one, execute, and keep what came of it in hand."""
        now = self._clock.now()
        blocked = await self._breakers.blocked(case.request.tool, case.request.principal, now)
        if blocked is not None:
            outcome = ledger.failed(case.situation, blocked, status="failed" if trail.ledger.executions else "refused")
            return await self._refuse(case, trail, outcome, now + timedelta(seconds=blocked.retry_after or 0.0))
        refusal = await asyncio.to_thread(admit, self._catalog, case.request)
        if refusal is not None or case.tool is None:
            refusal = refusal or Failure("tool.unknown", "Denied", "there is no such tool", "input", retryable=False)
            return await self._refuse(case, trail, ledger.failed(case.situation, refusal, status="refused"))
        profile = self._profile(case, case.tool)
        begun = self._clock.now()
        expires = begun + timedelta(seconds=profile.wall_seconds) + START_ALLOWANCE
        job = self._job(case, case.tool, profile, "call")
        job = replace(job, expires=min(expires, case.request.deadline))
        if action.intent:
            intent = self._intent(case, case.tool, job, action.execution)
            trail = await self._append(case.call, trail, intent, action.execution)
            crash.point("executor.after_intent")
            if self._clock.now() > begun + START_ALLOWANCE:
                return await self._too_late(case, trail, action.execution), None
        with executing(case.call.id, case.request.tool, case.situation.effect) as seen:
            execution = await self._sandbox.execute(job)
            crash.point("executor.after_effect")
            hand = await self._hand(case, case.tool, execution, action.execution)
            seen.ended(hand.outcome)
        return trail, hand

    async def _refuse(
        self, case: Case, trail: Trail, outcome: AuditOutcome, until: datetime | None = None
    ) -> tuple[Trail, Hand | None] | ledger.Wait:
        """Do not run it; what is recorded, if anything yet, depends on what was done before."""
        action = ledger.refuse(trail.ledger, case.situation, outcome, self._clock.now(), until)
        if isinstance(action, ledger.Wait):
            return action
        return await self._conclude(case.call, trail, action.outcome), None

    async def _too_late(self, case: Case, trail: Trail, execution: int) -> Trail:
        """Take back an intent that took so long to store that the tool would not get its time; nothing was started."""
        detail = "never started: storing the intent used up its time"
        self._log.warning("call.late_intent", tool=case.request.tool, execution=execution)
        return await self._append(case.call, trail, AuditReconciled(case.request.tool, False, detail), execution)

    def _profile(self, case: Case, tool: CatalogTool) -> ExecProfile:
        return self._compiler.compile(case.request.principal, tool.tool.schema(), tool.policies)

    def _job(self, case: Case, tool: CatalogTool, profile: ExecProfile, mode: Mode) -> Job:
        return Job(
            use=tool.spec.use,
            mode=mode,
            call_id=case.call.id,
            profile=profile,
            expires=self._clock.now() + timedelta(seconds=profile.wall_seconds) + START_ALLOWANCE,
            input=case.request.input,
            settings=tool.spec.settings,
        )

    def _intent(self, case: Case, tool: CatalogTool, job: Job, execution: int) -> AuditIntent:
        return AuditIntent(
            tool=case.request.tool,
            tool_version=tool.declaration.version,
            effect=tool.declaration.effect,
            principal=case.request.principal,
            input_sha256=case.request.input_sha256,
            profile_sha256=job.profile.sha256,
            execution=execution,
            expires=format_time(job.expires),
            permissions=job.profile.permissions,
        )

    async def _hand(self, case: Case, tool: CatalogTool, execution: Execution, number: int) -> Hand:
        """What came of an execution, as the outcome it would be."""
        verdict = judge(execution)
        failure, certain = verdict.failure, verdict.certain
        if failure is None:  # it did run: an output nobody can use is a failure, but no question
            failure = await asyncio.to_thread(invalid_output, tool, verdict.output)
        if failure is None:
            outcome = ledger.completed(case.situation, await self._kept(verdict.output))
        else:
            outcome = ledger.failed(case.situation, failure)
        seen = msgspec.structs.replace(outcome, exit_code=execution.exit_code, usage=execution.usage)
        return Hand(number, seen, certain)

    async def _kept(self, output: Any) -> dict[str, Any]:
        """The answer's payload as the ledger keeps it: itself, or the claim check of a large one."""
        return msgspec.json.decode(await check_in(self._objects, ToolCompleted(output)), type=dict[str, Any])

    # --- asking the tool -------------------------------------------------------------------------------------------

    async def _reconcile(self, case: Case, trail: Trail, execution: int) -> Trail:
        """Ask the tool's check whether an execution happened, and record what it says."""
        assert case.tool is not None
        said = await self._ask(case, case.tool)
        self._log.info("call.reconciled", tool=case.request.tool, happened=said.happened)
        return await self._append(case.call, trail, said, execution)

    async def _ask(self, case: Case, tool: CatalogTool) -> AuditReconciled:
        finding = await self._finding(case, tool)
        detail = finding.detail[:2000]
        if not finding.happened:
            return AuditReconciled(case.request.tool, finding.happened, detail)
        problem = await asyncio.to_thread(invalid_output, tool, finding.output)
        if problem is None:
            return AuditReconciled(case.request.tool, True, detail, await self._kept(finding.output))
        detail = f"it happened, but its check gave no valid output: {problem.message}"
        return AuditReconciled(case.request.tool, True, detail, {"error": problem.code})

    async def _finding(self, case: Case, tool: CatalogTool) -> Finding:
        """What the check says; one that does not answer is asked again a few times."""
        profile, left = self._profile(case, tool), CHECKS
        while True:
            finding, left = judge_check(await self._sandbox.execute(self._job(case, tool, profile, "check"))), left - 1
            if finding.answered or not left:
                return finding
            await asyncio.sleep(CHECK_PAUSE)

    # --- answering -------------------------------------------------------------------------------------------------

    async def _answer(self, call: Call, settled: Trail) -> None:
        outcome = settled.ledger.outcome
        assert outcome is not None
        await store_result(self._transport, answer(call, outcome, settled.last, self._clock.now()))
        crash.point("executor.after_result")

    async def _abandon(self, call: Call, failure: Failure) -> Trail:
        """Record the outcome of a call that is given up, unless it has one."""
        situation = await self._situation_of(call)
        while True:
            try:
                trail = await read_trail(self._transport, call)
            except EvidenceError:  # nothing can be recorded on a chain that is damaged; the caller is told all the same
                return replace(empty_trail(call), ledger=Ledger(outcome=ledger.failed(situation, failure)))
            if trail.ledger.outcome is not None:
                return trail
            try:
                return await self._conclude(call, trail, ledger.abandon(trail.ledger, situation, failure))
            except Conflict:
                continue

    async def _situation_of(self, call: Call) -> Situation:
        """What can be said about a call whose payload may be unusable."""
        try:
            return self._case(call, read_request(call, await check_out(self._objects, call.sealed.envelope))).situation
        except (InputError, EvidenceError, MeshError):
            return Situation("", "", "pure", False, self._clock.now())
