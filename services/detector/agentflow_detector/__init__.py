"""The agentflow detector: anomaly detection over the audited tool calls."""

__all__: list[str] = []
