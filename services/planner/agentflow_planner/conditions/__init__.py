"""CEL conditions: one front end, two engines; see `engine` for the rules both keep."""

from agentflow_planner.conditions.engine import Choice, Conditions, Engine, Program, engine_for, read_values

__all__ = ["Choice", "Conditions", "Engine", "Program", "engine_for", "read_values"]
