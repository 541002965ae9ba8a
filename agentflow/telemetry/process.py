"""A service process under observation: metrics counted, spans exported, health served, from its start to its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from agentflow.ending import end
from agentflow.errors import ConfigError
from agentflow.mesh.transport import Transport
from agentflow.telemetry.health import Health
from agentflow.telemetry.outcomes import STORES
from agentflow.telemetry.probing import Probe
from agentflow.telemetry.serving import Answer, Page, Pages, as_json
from agentflow.telemetry.tracing import Where, traced

OFF = "off"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a process knows of its own observation."""

    health: Health
    http: str
    """`http://host:port` of its pages, or an empty string."""
    traces: Where

    @contextlib.asynccontextmanager
    async def watching(self, transport: Transport, stop: asyncio.Event, monitor_url: str = "") -> AsyncIterator[None]:
        """Look after a connection for the time of a block."""
        probe = Probe(transport, self.health, monitor_url=monitor_url)
        _GAUGES.health, _GAUGES.probe = self.health, probe
        looking = asyncio.create_task(probe.run(stop), name="probe")
        try:
            yield
        finally:
            _GAUGES.probe = None
            await end(looking)


@contextlib.contextmanager
def observed(
    service: str, version: str, instance: str, *, address: str, traces: str | None = None
) -> Iterator[Observed]:
    """Observe this process for the time of a block.

    `address` is `host:port` for the pages, port 0 for a free one, or `off`. Raises `ConfigError`.
    """
    STORES.clear()
    health = Health()
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(traced(service, version, instance, traces))
        url = "" if address == OFF else stack.enter_context(_serving(address, health))
        yield Observed(health, url, where)


@contextlib.contextmanager
def _serving(address: str, health: Health) -> Iterator[str]:
    host, port = parse_address(address)
    meters = _meters()
    pages = Pages(host, port, {"/healthz": alive(health), "/readyz": ready(health), "/metrics": meters})
    try:
        yield pages.url
    finally:
        pages.close()


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (every address of this machine); raises `ConfigError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"AF_HTTP_ADDRESS is {address[:80]!r}; allowed are host:port, :port and off", code="http.address"
        )
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # whoever writes `:port` means every address


def alive(health: Health) -> Page:
    """`/healthz`: whether the process is worth keeping."""

    def page() -> Answer:
        lag = round(health.lag(), 3)
        status = HTTPStatus.OK if health.alive else HTTPStatus.SERVICE_UNAVAILABLE
        return as_json(status, {"alive": health.alive, "loop_lag_seconds": lag})

    return page


def ready(health: Health) -> Page:
    """`/readyz`: whether it can make progress just now, and what keeps it from it."""

    def page() -> Answer:
        report = health.report()
        return as_json(HTTPStatus.OK if report.ready else HTTPStatus.SERVICE_UNAVAILABLE, report.as_json())

    return page


def _meters() -> Page:
    """`/metrics`; the meters of a process are made once and count from then on."""
    try:
        from agentflow.telemetry import meters
    except ImportError as error:
        raise ConfigError(
            "metrics need the extra `otel`: pip install 'agentflow-mesh[otel]', or set AF_HTTP_ADDRESS=off",
            code="telemetry.not_installed",
        ) from error
    made = meters.installed()
    return lambda: Answer(HTTPStatus.OK, meters.CONTENT_TYPE, made.text())


class _Gauges:
    """What is observed when it is asked for: one set for the process, whichever service is in it just now."""

    def __init__(self) -> None:
        self.health: Health | None = None
        self.probe: Probe | None = None

    def ready(self, _: CallbackOptions) -> Iterable[Observation]:
        if self.health is not None:
            yield Observation(int(self.health.report().ready))

    def checks(self, _: CallbackOptions) -> Iterable[Observation]:
        if self.health is not None:
            for name, check in self.health.report().checks.items():
                yield Observation(int(check.ok), {"check": name})

    def lag(self, _: CallbackOptions) -> Iterable[Observation]:
        if self.health is not None:
            yield Observation(self.health.worst_lag())

    def pending(self, _: CallbackOptions) -> Iterable[Observation]:
        for each in self.probe.consumers if self.probe is not None else ():
            yield Observation(each.pending, {"stream": each.stream, "consumer": each.name})

    def unacknowledged(self, _: CallbackOptions) -> Iterable[Observation]:
        for each in self.probe.consumers if self.probe is not None else ():
            yield Observation(each.unacknowledged, {"stream": each.stream, "consumer": each.name})


_GAUGES = _Gauges()
_meter = metrics.get_meter("agentflow.process")
_meter.create_observable_gauge(
    "service_ready", [_GAUGES.ready], description="1 while the service can make progress, else 0; as /readyz says."
)
_meter.create_observable_gauge(
    "service_check_ok", [_GAUGES.checks], description="1 for each check of /readyz that is fine, else 0."
)
_meter.create_observable_gauge(
    "event_loop_lag_seconds",
    [_GAUGES.lag],
    unit="s",
    description="The longest time the event loop did not turn, since the last scrape.",
)
_meter.create_observable_gauge(
    "consumer_pending_messages", [_GAUGES.pending], description="Messages a consumer of this service has not delivered."
)
_meter.create_observable_gauge(
    "consumer_unacknowledged_messages",
    [_GAUGES.unacknowledged],
    description="Messages delivered to some process and not settled.",
)
