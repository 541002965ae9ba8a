"""Definitions as compiled plans: found by goal, or by the hash a run keeps to; compiled once per hash and engine."""

from agentflow.definitions import find_definition
from agentflow.envelope import sha256_hex
from agentflow.errors import (
    AgentflowError,
    DefinitionError,
    EvidenceError,
    InputError,
    NotStored,
    SchemaError,
)
from agentflow.mesh.transport import Objects, Transport
from agentflow.payloads import DefinitionRef, GoalSubmitted
from agentflow_planner.conditions import Choice, Engine, engine_for
from agentflow_planner.errors import ConditionError
from agentflow_planner.findings import did_you_mean
from agentflow_planner.inputs import check_input
from agentflow_planner.parsing import parse_definition
from agentflow_planner.plan import Plan, compile_plan
from agentflow_planner.runs import Problem

CHOICES: dict[str, Choice] = {"cel-expr-python": "cpp", "cel-python": "python"}
"""The setting that gives the engine a run was begun with."""


def _unknown(goal: str, error: NotStored) -> Problem:
    """No such definition: with those there are, and the one that was probably meant."""
    names, versions = (_texts(error.fields.get(field)) for field in ("names", "versions"))
    there = [f"{goal.partition('@')[0]}@{each}" for each in versions] if versions else names
    hint = did_you_mean(goal, there)
    message = f"{error.message}: {hint}" if hint else error.message
    return Problem("definition.unknown", message[:500], goal[:200], ", ".join(there)[:200] or "none is applied yet")


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


class Catalog:
    """Compiled plans of one planner process."""

    def __init__(self, transport: Transport, objects: Objects, engine: Engine) -> None:
        self._transport, self._objects, self._engine = transport, objects, engine
        self._engines = {engine.name: engine}
        self._plans: dict[tuple[str, str], Plan] = {}

    async def for_goal(self, goal: GoalSubmitted) -> Plan | Problem:
        """The plan of a goal, or why there is none. Raises `MeshError` when the mesh cannot be asked."""
        try:
            found = await find_definition(self._transport, goal.goal)
        except InputError as error:
            return Problem(error.error_code, error.message, goal.goal[:200], "name or name@version")
        except NotStored as error:
            return _unknown(goal.goal, error)
        try:
            plan = self._compiled(found.source, found.declaration.sha256, self._engine)
        except (ConditionError, DefinitionError) as error:
            return Problem(error.error_code, error.message[:500], goal.goal[:200])
        try:
            check_input(plan.definition.input_schema, goal.input)
        except SchemaError as error:
            return Problem(error.error_code, error.message[:500], str(error.fields.get("found", ""))[:200])
        return plan

    async def pinned(self, ref: DefinitionRef) -> Plan:
        """The plan a run keeps to, whatever was applied since.

        Raises `EvidenceError` when the stored definition is not the one the run began with, or cannot be read.
        """
        engine = self._engine_of(ref)
        if plan := self._plans.get((ref.sha256, engine.name)):
            return plan
        source = await self._objects.get(f"sha256-{ref.sha256}")
        if sha256_hex(source) != ref.sha256:
            raise EvidenceError(
                f"definition {ref.name}@{ref.version} is not what was applied", code="definition.altered"
            )
        try:
            return self._compiled(source, ref.sha256, engine)
        except AgentflowError as error:
            raise EvidenceError(f"definition {ref.name}@{ref.version}: {error}", code="definition.unusable") from error

    def _engine_of(self, ref: DefinitionRef) -> Engine:
        """The engine a run was begun with; raises `MeshError` where it is not installed here."""
        name = ref.engine.partition("/")[0]
        if name not in self._engines:
            try:
                self._engines[name] = engine_for(CHOICES[name])
            except (KeyError, AgentflowError) as error:
                raise EvidenceError(
                    f"condition engine {ref.engine} is not here", code="condition.engine_missing"
                ) from error
        return self._engines[name]

    def _compiled(self, source: bytes, sha256: str, engine: Engine) -> Plan:
        key = (sha256, engine.name)
        if key not in self._plans:
            self._plans[key] = compile_plan(parse_definition(source, f"sha256-{sha256}"), sha256, engine)
        return self._plans[key]
