"""The agentflow tool executor: permissions, profiles, effect ledger and audit of every tool call."""

__all__: list[str] = []
