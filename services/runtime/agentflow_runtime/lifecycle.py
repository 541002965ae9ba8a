"""The life of a hosted agent as a typed state machine: each state is a type of its own (requirement CX-046-01).

    Unloaded --load--> Loaded --start--> Running --stop--> Stopped --unload--> Unloaded
                         |                 |                  |
                         +------fail-------+                  +--start--> Running
                                 v
                              Failed --reload--> Loaded
                                 +-----unload--> Unloaded

A transition is a method that exists only where it is legal and returns the next state's type, so a type checker
rejects `Loaded(…).stop()`, and what needs a running agent says so by taking a `Running`. The states are tagged structs:
any of them can be written down and read back as an `AgentState`. Pure.
"""

import msgspec

from agentflow.payloads import Lifecycle

MAX_REASON = 500
"""Characters of the reason a failure is told with."""


class _State(msgspec.Struct, frozen=True, tag_field="state", kw_only=False):
    agent_id: str


class Unloaded(_State, frozen=True, tag="unloaded"):
    """Known by its name only."""

    def load(self) -> "Loaded":
        """Its code was found and an instance made."""
        return Loaded(self.agent_id)


class Loaded(_State, frozen=True, tag="loaded"):
    """An instance exists; `on_start` has not returned yet."""

    def start(self) -> "Running":
        """`on_start` returned: it may take messages."""
        return Running(self.agent_id)

    def fail(self, reason: str) -> "Failed":
        """`on_start` raised."""
        return Failed(self.agent_id, reason[:MAX_REASON])


class Running(_State, frozen=True, tag="running"):
    """It takes messages; the only state in which it may."""

    def stop(self) -> "Stopped":
        """It took its last message, and `on_finish` returned."""
        return Stopped(self.agent_id)

    def fail(self, reason: str) -> "Failed":
        """What brings it messages broke down; a failing handler is no such thing."""
        return Failed(self.agent_id, reason[:MAX_REASON])


class Stopped(_State, frozen=True, tag="stopped"):
    """It ended in order."""

    def start(self) -> "Running":
        """It takes messages again."""
        return Running(self.agent_id)

    def unload(self) -> Unloaded:
        """Its instance is dropped."""
        return Unloaded(self.agent_id)


class Failed(_State, frozen=True, tag="failed"):
    """It cannot go on as it is."""

    reason: str

    def reload(self) -> Loaded:
        """A new instance was made in its place."""
        return Loaded(self.agent_id)

    def unload(self) -> Unloaded:
        """It is given up."""
        return Unloaded(self.agent_id)


AgentState = Unloaded | Loaded | Running | Stopped | Failed
"""Any state there is."""


def announcement(state: Running | Stopped | Failed, incarnation: str) -> Lifecycle:
    """What is told on the agent's `out` subject when it enters this state."""
    match state:
        case Running():
            return Lifecycle(state.agent_id, incarnation, "started")
        case Stopped():
            return Lifecycle(state.agent_id, incarnation, "stopped")
        case Failed():
            return Lifecycle(state.agent_id, incarnation, "failed", state.reason)
