"""Labels that stay few, whatever strangers send: an allow-list of names, and a bound on the values of each. Pure.

Every label value is a time series that is kept for good. Names that come from outside (tenants, workflows, tools an
agent asks for) are counted: the first `MAX_VALUES` of each label are told apart, all others are `other`.
"""

ALLOWED = frozenset(
    {
        "agent",
        "check",
        "code",
        "consumer",
        "destination",
        "effect",
        "error",
        "kind",
        "method",
        "operation",
        "outcome",
        "phase",
        "reason",
        "rule",
        "service",
        "severity",
        "state",
        "status",
        "stream",
        "tenant",
        "tool",
        "version",
        "workflow",
    }
)
"""The names a label may have; others are left out, whoever sets them. Ids of runs and messages are not among them."""

MAX_VALUES = 100
"""Values of one label that are told apart."""

MAX_SERIES = 1000
"""Series of one instrument; what comes after is one series with `otel_metric_overflow="true"`."""

OTHER = "other"
NONE = "none"


class Values:
    """The values of labels that were told apart so far."""

    def __init__(self, limit: int = MAX_VALUES) -> None:
        self._limit = limit
        self._known: dict[str, set[str]] = {}

    def bounded(self, label: str, value: str) -> str:
        """The value, or `other` once there are too many; `none` for an empty one."""
        if not value:
            return NONE
        known = self._known.setdefault(label, set())
        if value in known:
            return value
        if len(known) >= self._limit or len(value) > 64:
            return OTHER
        known.add(value)
        return value
