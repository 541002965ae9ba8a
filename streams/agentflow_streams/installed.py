"""The deciders that are installed, found by entry point: what decides lies above this distribution."""

import functools
import importlib.metadata

from agentflow.errors import ConfigError
from agentflow_streams.deciders import DECIDERS, Decider


@functools.cache
def installed_deciders() -> dict[str, Decider]:
    """Every installed decider by its planner; raises `ConfigError` (`decider.not_installed`) where there is none."""
    found: dict[str, Decider] = {}
    for point in importlib.metadata.entry_points(group=DECIDERS):
        loaded = point.load()
        found[point.name] = loaded() if isinstance(loaded, type) else loaded
    if not found:
        raise ConfigError(
            "no planner is installed, so nothing can be decided again",
            code="decider.not_installed",
            hint="install agentflow-planner",
        )
    return found
