"""What a step fails with: every way a handler can end badly, as the `Failure` the planner reads.

The blame says who has to change. A `StepError` keeps its own; whatever else a handler raises is the agent's. Trouble
with the mesh is not a failure of the step and never gets here: the message is tried again. Pure.
"""

from typing import get_args

from agentflow.errors import AgentflowError, Blame, NondeterminismError, StepError
from agentflow.payloads import Failure, ToolFailed

MAX_MESSAGE = 2000
"""Characters of a failure's message."""

MAX_NAME = 200
"""Characters of its code and its type."""


def failure_of(error: BaseException) -> Failure:
    """The failure an error raised by a handler stands for."""
    error = _unwrap(error)
    if isinstance(error, StepError):
        retryable = error.fields.get("retryable", True) is True
        return _failure(error, error.error_code, error.blame, retryable=retryable)
    if isinstance(error, NondeterminismError):
        return _failure(error, error.error_code, "agent", retryable=False)
    return _failure(error, "agent.error", "agent")


def output_invalid(error: AgentflowError) -> Failure:
    """The handler returned something that is not a JSON value."""
    return _failure(error, "agent.output_invalid", "agent")


def deadline_passed(deadline: str) -> Failure:
    """The step was not done by its deadline."""
    return Failure("step.deadline", "TimeoutError", f"not done by its deadline {deadline}", "agent")


GIVEN_UP = "DeadLetter"
"""Type of the failure that a dead letter leaves behind."""


def given_up(code: str, reason: str, *, exhausted: bool) -> Failure:
    """The message became a dead letter: it kept coming back (the mesh's), or was wrong (the input's)."""
    return Failure(code, GIVEN_UP, text(reason), "mesh" if exhausted else "input", retryable=exhausted)


def tool_error(failed: ToolFailed, tool: str, call_id: str) -> StepError:
    """What a handler is raised when its tool call failed: the tool's own code, blame and word on retrying."""
    error = failed.error
    return StepError(
        f"tool {tool} failed: {error.message}",
        blame=error.blame,
        code=error.code,
        retryable=error.retryable,
        tool=tool,
        call_id=call_id,
    )


def text(value: object, limit: int = MAX_MESSAGE) -> str:
    """`str(value)`, bounded and encodable, even for an object whose `__str__` raises."""
    try:
        shown = str(value)
    except Exception:  # noqa: BLE001 - an error's author may have got its message wrong; its type still says something
        shown = f"({type(value).__qualname__} without a readable message)"
    clean = shown.encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _failure(error: BaseException, code: object, blame: Blame, *, retryable: bool = True) -> Failure:
    """A failure that is certain to fit its schema, whatever an author put into the error."""
    name = type(error).__qualname__
    known: Blame = blame if blame in get_args(Blame) else "agent"
    return Failure(text(code, MAX_NAME), text(name, MAX_NAME), _explained(error) or name, known, retryable)


def _explained(error: BaseException) -> str:
    """The message, and for a difference between two attempts what changed."""
    if not isinstance(error, NondeterminismError) or "before" not in error.fields:
        return text(error)
    before, now = (text(error.fields.get(name, ""), 800) for name in ("before", "now"))
    return text(f"{text(error, 300)}; before: {before}; now: {now}")


def _unwrap(error: BaseException) -> BaseException:
    """The one error inside nested groups of one, as `asyncio.TaskGroup` wraps them."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
