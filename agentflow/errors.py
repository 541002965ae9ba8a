"""Every error agentflow raises on purpose, and what a caller does about it.

Third-party errors are translated once, at the edge (`agentflow.mesh`, the CLI), so nothing outside this tree escapes a
public function. Each error has a stable `code` (documented, safe to match on), fields with the facts, and a message
built from them. The branches are the reactions a caller has:

    AgentflowError
    ├── InputError                  what came from outside is wrong: fix it and send it again
    │   ├── EnvelopeError           bytes that are not a valid sealed envelope
    │   ├── SubjectError            an id or subject outside the grammar
    │   ├── SchemaError             a payload that breaks its schema, or an unknown schema
    │   ├── DefinitionError         a workflow definition that cannot be accepted (carries its findings)
    │   └── ConfigError             a setting that is missing or out of range
    ├── EvidenceError               stored bytes or chains that do not verify
    │   └── NondeterminismError     a second attempt asked for something else than the first
    ├── MeshError                   the broker or the way to it
    │   ├── Unreachable             no connection; retry later
    │   ├── PublishFailed           not stored, for certain
    │   ├── OutcomeUnknown          may or may not be stored; read back before doing anything else
    │   ├── Conflict                another writer was first (carries what is stored)
    │   ├── NotStored               nothing under that subject, sequence, key or name
    │   └── ServerUnfit             the server lacks what durability needs
    ├── Denied                      policy says no
    ├── RunError                    a run that did not end well
    │   ├── RunFailed
    │   ├── RunCancelled
    │   └── RunTimeout              the wait ended before the run did (carries the run's state; also a TimeoutError)
    └── StepError                   raised inside a handler or tool to fail a step on purpose
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

Blame = Literal["input", "agent", "tool", "model", "mesh"]
"""Who has to change for the step to succeed: the caller, the agent's code, a tool, a model or the mesh."""


class AgentflowError(Exception):
    """Root of the tree. `code` is stable; `fields` hold the facts; `exit_code` is what a command ends with."""

    code: ClassVar[str] = "agentflow.error"
    exit_code: ClassVar[int] = 1
    retry_after: ClassVar[float | None] = None

    def __init__(self, message: str, /, *, code: str | None = None, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.fields: Mapping[str, object] = fields

    def __str__(self) -> str:
        return self.message


class InputError(AgentflowError):
    """Something from outside is wrong; nothing was lost and nothing was done."""

    code = "input.invalid"
    exit_code = 2


class EnvelopeError(InputError):
    """Bytes that are not a valid sealed envelope."""

    code = "envelope.invalid"


class SubjectError(InputError):
    """An id or a subject outside the grammar of `agentflow.subjects`."""

    code = "subject.invalid"


class SchemaError(InputError):
    """A payload that breaks its schema, or a schema nobody knows."""

    code = "schema.invalid"


class DefinitionError(InputError):
    """A definition that is refused; `findings` says where and why."""

    code = "definition.invalid"


class ConfigError(InputError):
    """A setting that is missing, malformed or out of range."""

    code = "config.invalid"


class EvidenceError(AgentflowError):
    """Stored bytes or a chain that do not verify."""

    code = "evidence.damaged"


class NondeterminismError(EvidenceError):
    """A handler that ran again asked for something else than the first time."""

    code = "handler.nondeterministic"


class MeshError(AgentflowError):
    """The broker, or the way to it."""

    code = "mesh.error"
    exit_code = 4


class Unreachable(MeshError):
    """No connection to the broker."""

    code = "mesh.unreachable"
    retry_after = 1.0


class PublishFailed(MeshError):
    """The broker refused the message: it is not stored."""

    code = "mesh.publish_failed"


class OutcomeUnknown(MeshError):
    """The message may or may not be stored, and a read-back could not tell."""

    code = "mesh.outcome_unknown"
    retry_after = 1.0


class Conflict(MeshError):
    """Another message is stored where this one was meant to be the next."""

    code = "mesh.conflict"
    exit_code = 7


class NotStored(MeshError):
    """Nothing is stored under that subject, sequence, key or name."""

    code = "mesh.not_stored"
    exit_code = 3


class ServerUnfit(MeshError):
    """The server is too old or not configured for durability."""

    code = "mesh.server_unfit"


class Denied(AgentflowError):
    """Policy refuses the action."""

    code = "policy.denied"
    exit_code = 6


class RunError(AgentflowError):
    """A run that did not end well."""

    code = "run.error"


class RunFailed(RunError):
    """The run ended in `run.failed`."""

    code = "run.failed"


class RunCancelled(RunError):
    """The run was cancelled."""

    code = "run.cancelled"


class RunTimeout(RunError, TimeoutError):
    """The caller's wait ended before the run did; `fields['state']` is where the run stands. Also a `TimeoutError`."""

    code = "run.timeout"
    exit_code = 5


class StepError(AgentflowError):
    """Raise it in a handler or a tool to fail the step with a code and a blame of your own."""

    code = "step.error"

    def __init__(self, message: str, /, *, blame: Blame = "agent", code: str | None = None, **fields: object) -> None:
        super().__init__(message, code=code, **fields)
        self.blame: Blame = blame
