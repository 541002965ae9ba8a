"""What goes wrong with protocol messages.

AgentflowError
└── ProtocolError               a message that has no place in a conversation (codes `protocol.…`)
"""

from agentflow.errors import AgentflowError


class ProtocolError(AgentflowError):
    """A message that has no place in the protocol it claims to belong to, or a mixin that names none."""

    code = "protocol.error"
    exit_code = 2
