"""Conversation protocols for agentflow agents: so far the base that mixins rest on."""

from agentflow_protocols.base import ProtocolMessage, ProtocolMixin, read_message
from agentflow_protocols.errors import ProtocolError

__all__ = ["ProtocolError", "ProtocolMessage", "ProtocolMixin", "read_message"]
