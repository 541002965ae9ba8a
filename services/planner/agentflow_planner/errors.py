"""The planner's own errors; everything else it raises is in `agentflow.errors`.

    AgentflowError
    └── PlannerError
        ├── ConditionError            an expression that cannot be evaluated: never the same as false
        │   └── ExpressionError       an expression that cannot even be compiled (carries the place)
        ├── EvaluationFailed          between an engine's backend and the front end, which adds the expression
        └── Unreadable                between the YAML reader and the parser, which makes a finding of it (`yaml_tree`)

A definition that is refused is an `agentflow.errors.DefinitionError`, with all findings in `fields["findings"]`.
"""

from agentflow.errors import AgentflowError


class PlannerError(AgentflowError):
    """Root of the planner's errors."""

    code = "planner.error"


class ConditionError(PlannerError):
    """An expression could not be evaluated; `expression` and `reason` say which and why.

    Codes: `condition.failed` (the evaluation), `condition.not_bool` (a condition that yields something else),
    `condition.not_json` (a result JSON has no value for), `condition.too_large`.
    """

    code = "condition.failed"

    def __init__(self, expression: str, reason: str, /, *, code: str | None = None, **fields: object) -> None:
        at = fields.get("path")
        shown = expression if len(expression) <= 200 else expression[:199] + "…"
        message = f"{f'{at}: ' if at else ''}{reason}, in {shown!r}"
        super().__init__(message, code=code, expression=expression, reason=reason, **fields)
        self.expression = expression
        self.reason = reason


class EvaluationFailed(PlannerError):
    """What the backend of an engine raises; callers get it as a `ConditionError` that names the expression."""

    code = "condition.failed"


class ExpressionError(ConditionError):
    """An expression that is no CEL, or none the planner accepts; `offset` counts characters from 0.

    Codes: `condition.syntax`, `condition.unknown_function`, `condition.type`, `condition.too_large`.
    """

    code = "condition.syntax"
    exit_code = 2

    def __init__(
        self,
        expression: str,
        reason: str,
        /,
        *,
        offset: int = 0,
        code: str | None = None,
        found: str = "",
        allowed: tuple[str, ...] = (),
    ) -> None:
        super().__init__(expression, reason, code=code, offset=offset, found=found, allowed=allowed)
        self.offset = offset
        self.found = found
        self.allowed = allowed
