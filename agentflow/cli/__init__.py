"""The command line: `agentflow`, alias `af`, and `python -m agentflow`."""

__all__: list[str] = []
