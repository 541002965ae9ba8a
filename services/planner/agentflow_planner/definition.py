"""A workflow definition as typed, frozen values: what parsing makes and the state machine works with. Pure.

Durations are seconds. Conditions and templates are still text here; `plan.py` compiles them for an engine.
"""

from typing import Any, Literal

import msgspec

DEFAULT_MAX_STEPS = 100
"""Steps a run may take, unless its definition says otherwise."""

DEFAULT_RUN_TIMEOUT = 3600.0
"""Seconds a run may take, unless its definition says otherwise."""

DEFAULT_STATE_TIMEOUT = 60.0
"""Seconds a state may take, unless its definition says otherwise; never more than the run's."""

RUN_CONTEXT = ("attempt", "signals", "state", "steps", "workflow_id")
"""What a run adds to `context`; constants of a definition cannot have these names."""

VARIABLES = ("context", "error", "input", "output", "outputs")
"""What expressions see."""


class RetryDef(msgspec.Struct, frozen=True):
    """How often a failed step is tried, and how long to wait before it is tried again."""

    max_attempts: int = 1
    """All attempts count, the first too."""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled for each further one, with jitter."""


class TransitionDef(msgspec.Struct, frozen=True):
    """A way from one state to another."""

    to: str
    condition: str | None = None
    """A CEL expression that yields a bool; None holds always."""


class StateDef(msgspec.Struct, frozen=True):
    """One state: what is done in it, and where it leads."""

    name: str
    agent: str = ""
    """Exactly one of `agent`, `tool` and `signal` is given, none in a final state."""
    tool: str = ""
    signal: str = ""
    input: Any = None
    """A mapping of literals and `${…}` templates, or one template that yields a mapping; None for no input."""
    timeout: float = DEFAULT_STATE_TIMEOUT
    retry: RetryDef = RetryDef()
    transitions: tuple[TransitionDef, ...] = ()
    """Tried in order."""
    on_success: str = ""
    """Where to go when no transition holds."""
    on_error: str = ""
    """Where to go when the step has failed for good."""

    @property
    def action(self) -> Literal["agent", "tool", "signal", "none"]:
        """What the state does; `none` for a final state."""
        return "agent" if self.agent else "tool" if self.tool else "signal" if self.signal else "none"

    @property
    def targets(self) -> tuple[str, ...]:
        """Every state this one can lead to, in order, each once."""
        named = [*(transition.to for transition in self.transitions), self.on_success, self.on_error]
        return tuple(dict.fromkeys(name for name in named if name))


class Definition(msgspec.Struct, frozen=True):
    """A workflow."""

    name: str
    version: str
    """SemVer without a build part."""
    initial_state: str
    final_states: tuple[str, ...]
    states: dict[str, StateDef]
    """By name, in the order of the file; a final state may be missing here."""
    planner: str = "fsm"
    description: str = ""
    max_steps: int = DEFAULT_MAX_STEPS
    timeout: float = DEFAULT_RUN_TIMEOUT
    context: dict[str, Any] = {}
    """Constants that expressions see as `context.<name>`."""
    input_schema: dict[str, Any] | None = None
    """JSON Schema of a goal's input."""
    output: Any = None
    """Template of what the run returns; None returns the last step's output."""

    def state(self, name: str) -> StateDef:
        """The state of that name; one that only stands in `final_states` is an empty one. Raises `KeyError`."""
        found = self.states.get(name)
        if found is None and name in self.final_states:
            return StateDef(name)
        return self.states[name] if found is None else found

    def is_final(self, name: str) -> bool:
        """Whether a run ends there."""
        return name in self.final_states

    @property
    def state_names(self) -> tuple[str, ...]:
        """Every state, in the order of the file, final ones that are not spelled out last."""
        return tuple(dict.fromkeys([*self.states, *self.final_states]))


class Declared(msgspec.Struct, frozen=True):
    """The agents and tools the mesh knows; what is not among them cannot be named by a definition."""

    agents: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
