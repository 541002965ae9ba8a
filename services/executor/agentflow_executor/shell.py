"""What the executor process does between its start and its end: declare the tools, work off the calls, drain."""

import functools
import os

from agentflow.errors import ConfigError
from agentflow.mesh.patience import patiently
from agentflow.mesh.retries import Retries
from agentflow.mesh.transport import ConsumerSpec
from agentflow.mesh.work import Worker, WorkPolicy
from agentflow.registry import ARTIFACTS, CONFIG, Heartbeat
from agentflow.service import Host
from agentflow_executor import holding
from agentflow_executor.audit import EXECUTOR
from agentflow_executor.catalog import Catalog
from agentflow_executor.declare import declare
from agentflow_executor.handling import CallHandler
from agentflow_executor.permissions import parse_permission
from agentflow_executor.sandbox import Sandbox
from agentflow_executor.settings import ExecutorSettings

CALLS = "tools.calls.*"
"""What the consumer takes."""


def consumer_spec(settings: ExecutorSettings) -> ConsumerSpec:
    """The durable consumer that all executors share."""
    return ConsumerSpec(stream="AF_AUDIT", name=EXECUTOR, filters=(CALLS,), ack_wait=settings.ack_wait)


def entries(host: Host, catalog: Catalog, settings: ExecutorSettings) -> list[Heartbeat]:
    """What this process keeps in the registry while it lives."""
    tools = [
        host.heartbeat_for("tool", each.id, version=each.version, effect=each.effect) for each in catalog.declarations
    ]
    itself = host.heartbeat_for(
        "executor",
        EXECUTOR,
        sandbox=settings.sandbox,
        concurrency=settings.concurrency,
        tools=len(tools),
        **holding.as_detail(settings.sandbox_uid if os.geteuid() == 0 else None),
    )
    return [*tools, itself]  # last, because who waits for the executor waits for its tools


async def work(host: Host, catalog: Catalog, sandbox: Sandbox) -> None:
    """The service's body: until `host.stop` is set, and then until what is in hand is done.

    Raises `SandboxUnavailable` and `ConfigError` before the first call is taken.
    """
    settings = host.settings
    if not isinstance(settings, ExecutorSettings):
        raise ConfigError(f"the executor needs ExecutorSettings, found {type(settings).__name__}")
    try:
        sandbox.clock = host.clock
        await sandbox.probe(*_needs(catalog))
        bucket = await patiently(host.transport, lambda: host.transport.bucket(CONFIG))
        for declaration in catalog.declarations:
            if await patiently(host.transport, functools.partial(declare, bucket, declaration)):
                host.log.info("tool.declared", tool=declaration.id, version=declaration.version)
        _warn(host, catalog)
        objects = await patiently(host.transport, lambda: host.transport.objects(ARTIFACTS))
        handler = CallHandler(host.transport, objects, catalog, sandbox, host.clock, host.log)
        consumer = await patiently(host.transport, lambda: host.transport.consume(consumer_spec(settings)))
        policy = WorkPolicy(settings.concurrency, settings.ack_wait, settings.max_deliveries)
        async with host.registered(*entries(host, catalog, settings)):
            host.log.info("executor.ready", tools=len(catalog.tools), concurrency=settings.concurrency)
            retries = Retries(host.transport, EXECUTOR)
            await Worker(consumer, handler.handle, handler.give_up, policy, host.log, retries).run(host.stop)
    finally:
        sandbox.close()


def _needs(catalog: Catalog) -> tuple[list[str], int]:
    """What a probe has to load, and the most memory any of it may have, in MiB."""
    tools = catalog.tools.values()
    return [each.spec.use for each in tools], max((each.policies.memory_mib for each in tools), default=512)


def _warn(host: Host, catalog: Catalog) -> None:
    """Say at the start what would otherwise only be seen at the first call."""
    for tool_id, each in catalog.tools.items():
        if not each.grants.allowed:
            host.log.warning("tool.refused", tool=tool_id, code=each.grants.code, reason=each.grants.message)
        kinds = {parse_permission(text).kind for text in each.declaration.permissions}
        loose = sorted(kind for kind in kinds if kind.startswith(("network.", "k8s.", "db.")))
        if loose:
            host.log.warning("tool.not_contained", tool=tool_id, permissions=loose, sandbox="process")
