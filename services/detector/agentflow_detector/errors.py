"""The detector's own errors.

ConfigError
└── RulesError      a rules file that cannot be used (code, place, found, allowed)
"""

from agentflow.errors import ConfigError


class RulesError(ConfigError):
    """A rules file that cannot be used; nothing is watched until it is mended."""

    code = "rules.invalid"
