"""What the detector counts, through OpenTelemetry: nothing is exported unless the process sets that up."""

from opentelemetry import metrics

from agentflow_detector.observing import Observation


class DetectorMetrics:
    """The detector's instruments. Only what was stored for the first time counts."""

    def __init__(self) -> None:
        meter = metrics.get_meter("agentflow.detector")
        self._anomalies = meter.create_counter(
            "tool_anomalies_total", description="Findings, by tenant, agent and tool"
        )
        self._blocked = meter.create_counter(
            "tools_auto_blocked_total", description="Breakers tripped, by tenant and tool"
        )
        self._seconds = meter.create_histogram(
            "tool_anomaly_detection_seconds", unit="s", description="From the stored audit entry to the stored finding"
        )

    def found(self, seen: Observation, seconds: float) -> None:
        """An anomaly was stored, so long after the call that broke the rule."""
        self._anomalies.add(1, {"tenant": seen.tenant, "agent": seen.principal, "tool": seen.tool})
        self._seconds.record(seconds)

    def tripped(self, seen: Observation) -> None:
        """A breaker was set for that call."""
        self._blocked.add(1, {"tenant": seen.tenant, "tool": seen.tool})
