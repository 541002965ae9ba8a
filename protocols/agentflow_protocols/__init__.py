"""Conversation protocols for agentflow agents: contract net, two-phase commit, conversation."""

__all__: list[str] = []
