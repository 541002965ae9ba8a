"""Where settings come from: flags, variables, files, in layers; what is wrong with them, and where it stands."""

from agentflow.configuration.platform import PlatformSettings
from agentflow.configuration.problems import Problem
from agentflow.configuration.resolving import Resolution, check, resolve, warnings

__all__ = ["PlatformSettings", "Problem", "Resolution", "check", "resolve", "warnings"]
