"""The errors the executor adds to `agentflow.errors`.

AgentflowError
└── ExecutorError
    └── SandboxUnavailable      a part of the sandbox that was asked for cannot be set up: no tool runs
"""

from agentflow.errors import AgentflowError


class ExecutorError(AgentflowError):
    """Root of what only the executor raises."""

    code = "executor.error"


class SandboxUnavailable(ExecutorError):
    """The sandbox cannot be set up on this machine; fail closed."""

    code = "sandbox.unavailable"
