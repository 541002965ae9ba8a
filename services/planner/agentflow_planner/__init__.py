"""The agentflow planner: decides what a run does next, as a pure function of its history."""

__all__: list[str] = []
