"""The agentflow runtime: hosts agents and runs their handlers durably."""

__all__: list[str] = []
