"""The metrics of this process as Prometheus text: what OpenTelemetry instruments counted, and the process itself.

Needs the extra `otel`. The exporter's own habits would surprise whoever named an instrument: units become part of the
name, and each series carries its scope. Here a metric is called what it is called.
"""

import dataclasses
from collections.abc import Sequence

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from agentflow.telemetry.labels import ALLOWED, MAX_SERIES

CONTENT_TYPE = CONTENT_TYPE_LATEST

_INSTRUMENTS = (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)


class PlainNames(PrometheusMetricReader):
    """Metrics under exactly the names of their instruments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(
            disable_target_info=True,
            scope_info_enabled=False,
            registry=registry,
            cardinality_limits=dict.fromkeys(_INSTRUMENTS, MAX_SERIES),
        )

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: object) -> None:
        super()._receive_metrics(without_units(metrics_data), timeout_millis, **more)


def without_units(found: MetricsData) -> MetricsData:
    """The same metrics without units: our names say them."""
    return dataclasses.replace(
        found,
        resource_metrics=[
            dataclasses.replace(
                resource,
                scope_metrics=[
                    dataclasses.replace(
                        scope, metrics=[dataclasses.replace(metric, unit="") for metric in scope.metrics]
                    )
                    for scope in resource.scope_metrics
                ],
            )
            for resource in found.resource_metrics
        ],
    )


class Meters:
    """The metrics of this process, from its start on."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()
        self._reader = PlainNames(self._registry)
        ProcessCollector(registry=self._registry)
        self.provider = MeterProvider(
            metric_readers=[self._reader], resource=Resource.create(), views=_views(), shutdown_on_exit=False
        )

    def install(self) -> None:
        """Make every meter of the process count here; of several in one process the first stays."""
        metrics.set_meter_provider(self.provider)

    def text(self) -> bytes:
        """What a scrape gets."""
        return generate_latest(self._registry)


def _views() -> Sequence[View]:
    """One view for everything: only allowed labels pass."""
    return [View(instrument_name="*", attribute_keys=set(ALLOWED))]


_installed: list[Meters] = []


def installed() -> Meters:
    """The meters of this process: made and installed when they are first asked for."""
    if not _installed:
        made = Meters()
        made.install()
        _installed.append(made)
    return _installed[0]
