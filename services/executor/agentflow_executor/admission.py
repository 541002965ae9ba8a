"""Whether a call may run, asked in this order: is there such a tool, may this caller, does the input fit. Pure.

It is asked before every execution, never about an effect that may already have happened.
"""

from typing import Any

from agentflow.envelope import encode_payload
from agentflow.errors import SchemaError
from agentflow.payloads import Failure
from agentflow.plain import check_plain
from agentflow_executor.catalog import Catalog, CatalogTool
from agentflow_executor.intake import Request


def admit(catalog: Catalog, request: Request) -> Failure | None:
    """Why the call may not run, or None."""
    decision = catalog.access.decide(request.principal, request.tool)
    if not decision.allowed:
        return Failure(decision.code, "Denied", decision.message, "input", retryable=False)
    return invalid_input(catalog.tools[request.tool], request.input)


def invalid_input(tool: CatalogTool, value: dict[str, Any]) -> Failure | None:
    """What is wrong with an input, or None."""
    limit, found = tool.policies.limits.input_bytes, len(encode_payload(value))
    if found > limit:
        message = f"the input has {found} bytes of JSON; allowed are {limit}"
        return Failure("tool.input_too_large", "InputInvalid", message, "input", retryable=False)
    problem = _not_plain(value, "input") or tool.inputs.problem(value)
    return Failure("tool.input_invalid", "InputInvalid", problem, "input", retryable=False) if problem else None


def invalid_output(tool: CatalogTool, value: Any) -> Failure | None:
    """What is wrong with an output, or None. The tool has run: trying again does not help."""
    problem = _not_plain(value, "output") or tool.outputs.problem(value)
    return Failure("tool.output_invalid", "OutputInvalid", problem, "tool", retryable=False) if problem else None


def _not_plain(value: Any, where: str) -> str:
    try:
        check_plain(value, where)
    except SchemaError as error:
        return error.message
    return ""
