"""From `module:Name` to a hosted agent: found, checked before the first message, or refused with what is wrong.

A name may stand for a class (deriving from `agentflow.agent.Agent`, or any with its hooks), a `FunctionAgent` made by
`@agent`, or a plain function `(ctx, input)`. Everything that could only fail at the first message is tried here: ids
that fit a consumer's name, hooks that can be called with what they will be given, a constructor without arguments.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from agentflow.agent import FunctionAgent
from agentflow.errors import ConfigError, SubjectError
from agentflow.ids import check_token
from agentflow.project import AgentSpec
from agentflow.registry import AgentDeclaration
from agentflow_runtime.failures import text
from agentflow_runtime.hosting import Hooks, HostedAgent, consumer_name, hooks_of, hooks_of_function

MAX_CONCURRENCY = 1000

_HOOKS = {"on_start": 1, "on_message": 2, "on_plan": 2, "on_finish": 0}
"""Every hook, with how many arguments it is given."""


def load_agents(specs: Iterable[AgentSpec]) -> list[HostedAgent]:
    """All agents of a process; raises `ConfigError` (`agent.none`, `agent.duplicate`, and those of `load_agent`)."""
    agents: dict[str, HostedAgent] = {}
    for spec in specs:
        agent = load_agent(spec)
        if agent.id in agents:
            raise ConfigError(
                f"{spec.use}: another agent already has the id {agent.id!r}; give one of them an id of its own",
                code="agent.duplicate",
                agent=agent.id,
            )
        agents[agent.id] = agent
    if not agents:
        raise ConfigError("no agent to host: name one as module:Class, or in a project file", code="agent.none")
    return list(agents.values())


def load_agent(spec: AgentSpec) -> HostedAgent:
    """The agent a project file or an argument names; raises `ConfigError` (`agent.not_found`, `agent.invalid`)."""
    found = _find(spec.use)
    if isinstance(found, FunctionAgent):
        return _function(spec, found)
    if inspect.isclass(found):
        return _class(spec, found)
    if inspect.isroutine(found):
        return _function(spec, FunctionAgent(found.__name__, found, inspect.getdoc(found) or "", 8))
    raise _invalid(spec, f"is {type(found).__name__}; allowed are an agent class, @agent or a function")


def _find(use: str) -> Any:
    module_name, _, path = use.partition(":")
    if not module_name or not path or not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError(f"agent {use!r} is not of the form module:Name", code="agent.not_found", use=use)
    found: Any = _import(use, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"agent {use!r}: {module_name} has no {path}", code="agent.not_found", use=use)
        found = getattr(found, part)
    return found


def _import(use: str, module_name: str) -> Any:
    """The module; what it raises while it is imported, `sys.exit` included, is a fault of the agent."""
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        problem = f"agent {use!r}: importing {module_name}: {type(error).__name__}: {text(error)}"
        code = "agent.not_found" if _is_absent(error, module_name) else "agent.invalid"
        raise ConfigError(problem, code=code, use=use) from error


def _is_absent(error: BaseException, module_name: str) -> bool:
    """Whether the module itself (or a package it lies in) is missing, not one that it imports."""
    return isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")


def _function(spec: AgentSpec, agent: FunctionAgent) -> HostedAgent:
    _check_call(spec, "the function", agent.handler, 2)
    hooks = hooks_of_function(agent)
    declared = AgentDeclaration(spec.id or agent.id, agent.description, agent.concurrency)
    return _hosted(spec, declared, lambda: hooks)


def _class(spec: AgentSpec, found: type) -> HostedAgent:
    spare: list[object] = []

    def create() -> Hooks:
        return hooks_of(spare.pop() if spare else found())

    if not hasattr(found, "on_message"):
        raise _invalid(spec, "has no on_message")
    for name, arguments in _HOOKS.items():
        if getattr(found, name, None) is not None:
            _check_call(spec, name, getattr(found, name), arguments, bound=_takes_self(found, name))
    try:
        spare.append(found())
    except (Exception, SystemExit) as error:
        raise _invalid(spec, f"cannot be made without arguments: {type(error).__name__}: {text(error)}") from error
    description = getattr(found, "description", "") or inspect.cleandoc(found.__doc__ or "")
    agent_id = spec.id or getattr(found, "id", "")
    return _hosted(spec, AgentDeclaration(agent_id, description, getattr(found, "concurrency", 8)), create)


def _hosted(spec: AgentSpec, declared: AgentDeclaration, create: Callable[[], Hooks]) -> HostedAgent:
    concurrency = declared.concurrency if spec.concurrency is None else spec.concurrency
    if type(concurrency) is not int or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise _invalid(spec, f"has the concurrency {concurrency!r}; allowed are 1 to {MAX_CONCURRENCY}")
    if not declared.id:
        raise _invalid(spec, "has no id; set `id` on the class, or in the project file")
    try:
        check_token(declared.id, "agent id")
        check_token(consumer_name(declared.id), "the name of its consumer")
    except SubjectError as error:
        raise _invalid(spec, f"has the id {declared.id!r}: {error}") from error
    if not isinstance(declared.description, str):
        raise _invalid(spec, "has a description that is not text")
    return HostedAgent(declared.id, create, declared.description, concurrency, spec.settings)


def _takes_self(found: type, name: str) -> bool:
    return not isinstance(inspect.getattr_static(found, name), staticmethod | classmethod)


def _check_call(spec: AgentSpec, what: str, hook: Any, arguments: int, *, bound: bool = False) -> None:
    """Refuse a hook that the runtime could not call."""
    if not callable(hook):
        raise _invalid(spec, f"has {what} that cannot be called")
    try:
        inspect.signature(hook).bind(*[None] * (arguments + bound))
    except TypeError as error:
        raise _invalid(spec, f"has {what} that cannot be called with {arguments} arguments: {error}") from error
    except ValueError:
        return  # built in: it has no signature to look at


def _invalid(spec: AgentSpec, problem: str) -> ConfigError:
    return ConfigError(f"agent {spec.use!r} {problem}", code="agent.invalid", use=spec.use)
