"""What a tool's author writes: a function with `@tool`, its schemas taken from the signature.

    @tool(effect="irreversible", permissions=["fs.append:outbox"], timeout=5)
    def send_response(ctx: ToolContext, ticket: str, text: str) -> dict[str, Any]:
        \"\"\"Append the answer to the outbox.\"\"\"
        ...

    @send_response.check
    def was_sent(ctx: ToolContext, ticket: str, text: str) -> CheckResult: ...

The function runs in a sandboxed child process of the executor, never in an agent. A tool whose effect cannot be
repeated declares a `check`: it answers, after a crash, whether the call with `ctx.call_id` happened.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, get_args, get_type_hints

import msgspec

from agentflow.errors import InputError
from agentflow.ids import check_token
from agentflow.registry import Effect, ToolDeclaration

DEFAULT_TIMEOUT = 30.0
"""Seconds a tool call may take."""


class CheckResult(msgspec.Struct, frozen=True):
    """What a tool's check found out about one call."""

    happened: bool | None
    """None: it cannot tell, and a person has to."""
    output: Any = None
    """The output the call had, where it happened."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool gets besides its input; there is nothing else: no environment, no inherited files."""

    call_id: str
    """Stable over retries: pass it on as an idempotency key."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The tool's settings from the project file."""
    files: Mapping[str, BinaryIO] = field(default_factory=dict)
    """Granted files by the name of the grant, already open."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as the registry describes it."""

    declaration: ToolDeclaration


class Tool(Protocol):
    """What the executor needs of a tool (requirement AF-3-06)."""

    def id(self) -> str:
        """The tool's id."""
        ...

    def schema(self) -> ToolSchema:
        """Name, version, input and output schema, permissions, effect class, timeout, cost."""
        ...

    def call(self, ctx: ToolContext, input: dict[str, Any]) -> Any:
        """Run it; called inside the sandbox only."""
        ...

    def required_permissions(self) -> list[str]:
        """Permissions it must be granted, such as `network.http:api.example.com` or `fs.append:outbox`."""
        ...


@dataclass(slots=True)
class FunctionTool:
    """A `Tool` made of a function."""

    function: Callable[..., Any]
    declaration: ToolDeclaration
    memory_mib: int = 512
    checker: Callable[..., CheckResult] | None = None

    def id(self) -> str:
        """The tool's id."""
        return self.declaration.id

    def schema(self) -> ToolSchema:
        """How the registry describes it."""
        return ToolSchema(self.declaration)

    def call(self, ctx: ToolContext, input: dict[str, Any]) -> Any:
        """Run the function."""
        return self.function(ctx, **input)

    def required_permissions(self) -> list[str]:
        """The permissions it declares."""
        return list(self.declaration.permissions)

    def check(self, checker: Callable[..., CheckResult]) -> Callable[..., CheckResult]:
        """Decorator: register the function that answers whether a call happened; it takes the same arguments."""
        self.checker = checker
        return checker


def tool(
    *,
    effect: Effect,
    permissions: list[str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    id: str | None = None,
    name: str | None = None,
    version: str = "1.0.0",
    memory_mib: int = 512,
    cost: float = 0.0,
    input_schema: dict[str, Any] | None = None,
    output_schema: dict[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], FunctionTool]:
    """Make a tool of a function whose first parameter is the `ToolContext`.

    `effect` has no default on purpose: recovery depends on it. `timeout` is in seconds, `cost` in dollars a call.
    Schemas come from the annotations unless given. Raises `InputError` for a signature no schema can be made of, and
    for an effect class there is not.
    """
    if effect not in get_args(Effect):
        raise InputError(
            f"effect {effect!r:.80} is not allowed: use one of {', '.join(get_args(Effect))}", code="tool.effect"
        )

    def wrap(function: Callable[..., Any]) -> FunctionTool:
        tool_id = check_token(id or function.__name__, "tool id")
        parameters = _parameters(function)
        declaration = ToolDeclaration(
            id=tool_id,
            name=name or tool_id.replace("_", " "),
            version=version,
            description=inspect.cleandoc(function.__doc__ or ""),
            input_schema=_input_schema(function, parameters) if input_schema is None else input_schema,
            output_schema=_output_schema(function) if output_schema is None else output_schema,
            permissions=tuple(permissions or ["none"]),
            effect=effect,
            timeout=timeout,
            cost=cost,
        )
        return FunctionTool(function, declaration, memory_mib)

    return wrap


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a call is given by name: the parameters behind the context."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise _unusable(function, "its first parameter must be the ToolContext")
    for parameter in parameters[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _unusable(function, f"parameter {parameter.name!r} cannot be given by name")
    return parameters[1:]


def _input_schema(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    hints = _hints(function)
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.name not in hints:
            raise _unusable(function, f"parameter {parameter.name!r} needs an annotation")
        entry = (parameter.name, hints[parameter.name])
        fields.append(entry if parameter.default is parameter.empty else (*entry, parameter.default))
    try:
        struct = msgspec.defstruct("Input", fields, kw_only=True, forbid_unknown_fields=True)
        return _inline(msgspec.json.schema(struct))
    except (TypeError, ValueError) as error:
        raise _unusable(function, str(error)) from error


def _output_schema(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return _inline(msgspec.json.schema(_hints(function).get("return", Any)))
    except (TypeError, ValueError) as error:
        raise _unusable(function, str(error)) from error


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:  # annotations are the author's code, evaluated here
        raise _unusable(function, f"its annotations cannot be evaluated: {error}") from error


def _unusable(function: Callable[..., Any], problem: str) -> InputError:
    name = getattr(function, "__name__", repr(function))
    return InputError(f"tool {name}: {problem}", code="tool.signature")


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the referenced top definition in place of `$ref`, which readers of a registry expect."""
    reference = schema.get("$ref")
    definitions = dict(schema.get("$defs", {}))
    if not isinstance(reference, str):
        return schema
    name = reference.rpartition("/")[2]
    top = definitions[name]
    if f'"{reference}"' not in json.dumps(definitions):  # a type that contains itself is still referred to
        del definitions[name]
    return {**top, "$defs": definitions} if definitions else dict(top)
