"""Making the streams and buckets of a mesh: what is missing is created, what drifted is told, nothing is overwritten.

Safe to run again at any time and by several processes at once. After a stream was created its configuration is read
back, because the server changes some keys in silence (architecture, section 3.4).
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from agentflow.errors import AgentflowError, ConfigError, MeshError, OutcomeUnknown, ServerUnfit, Unreachable
from agentflow.mesh.transport import StreamInfo, Transport
from agentflow_streams.definitions import Definition, definitions, fitted
from agentflow_streams.drift import OPERATORS_OWN, Drift, compare, would_remove_history

State = Literal["created", "unchanged", "drifted", "updated"]
"""What provisioning found or did: a stream that drifted and was not fully mended stays `drifted`."""

_NO_ROOM = (10023, 10028, 10047)
"""Server errors: not enough storage or memory for what the stream reserves."""


class StreamReport(msgspec.Struct, frozen=True):
    """One stream: what was done, and what still differs."""

    name: str
    state: State
    drift: tuple[Drift, ...] = ()
    refused: str = ""
    """What the server said to an update it refused."""


class ProvisionReport(msgspec.Struct, frozen=True):
    """Every stream of the mesh."""

    streams: tuple[StreamReport, ...]

    @property
    def drift(self) -> tuple[Drift, ...]:
        """All that still differs."""
        return tuple(drift for stream in self.streams for drift in stream.drift)

    @property
    def safe(self) -> bool:
        """Whether no key that protects evidence differs."""
        return not any(drift.protected for drift in self.drift)

    def named(self, state: State) -> tuple[str, ...]:
        """The streams in a state."""
        return tuple(stream.name for stream in self.streams if stream.state == state)


class Surveyed(msgspec.Struct, frozen=True):
    """One stream as it is on the server."""

    name: str
    info: StreamInfo | None
    """None: it does not exist."""
    drift: tuple[Drift, ...]


async def provision(
    transport: Transport,
    *,
    replicas: int = 1,
    registry_ttl: float = 6.0,
    capacity: float = 1.0,
    update: bool = False,
) -> ProvisionReport:
    """Create what is missing and compare the rest with its definition.

    `registry_ttl` is how many seconds a registry entry lives (three heartbeats); `capacity` multiplies `max_bytes`.
    Drift is reported, and mended only with `update`; even then a limit is never narrowed where that would drop
    messages. Raises `ServerUnfit` when the server silently changed a key that protects evidence, `ConfigError` for
    choices it cannot take, and `MeshError` when it cannot be reached.
    """
    wanted = [fitted(each, replicas=replicas, registry_ttl=registry_ttl, capacity=capacity) for each in definitions()]
    return ProvisionReport(tuple([await _provision_one(transport, each, update=update) for each in wanted]))


async def survey(transport: Transport, wanted: Sequence[Definition]) -> tuple[Surveyed, ...]:
    """What there is now and how it differs from `wanted`. Changes nothing."""
    found = [(each, await transport.stream_info(each.name)) for each in wanted]
    return tuple(
        Surveyed(each.name, info, tuple(compare(each, info.config)) if info is not None else ()) for each, info in found
    )


async def _provision_one(transport: Transport, definition: Definition, *, update: bool) -> StreamReport:
    info = await transport.stream_info(definition.name)
    if info is None:
        created = await _create(transport, definition)
        if created is not None:
            return created
        info = await _existing(transport, definition)
    found = compare(definition, info.config)
    if not found:
        return StreamReport(definition.name, "unchanged")
    if update:
        return await _update(transport, definition, info, found)
    return StreamReport(definition.name, "drifted", tuple(found))


async def _create(transport: Transport, definition: Definition) -> StreamReport | None:
    """Create a stream and read it back; None when someone else created it in the meantime, or may have."""
    try:
        await transport.create_stream(definition.config())
    except Unreachable:
        raise
    except MeshError as error:
        if isinstance(error, OutcomeUnknown) or await transport.stream_info(definition.name) is not None:
            return None
        raise _explained(definition, error) from error
    info = await _existing(transport, definition)
    changed = compare(definition, info.config)
    if any(drift.protected for drift in changed):
        raise ServerUnfit(
            f"the server changed {definition.name} while it created it: {'; '.join(d.sentence for d in changed)}",
            code="server.changed_stream",
            stream=definition.name,
            keys=[drift.key for drift in changed],
        )
    return StreamReport(definition.name, "created", tuple(changed))


async def _existing(transport: Transport, definition: Definition) -> StreamInfo:
    info = await transport.stream_info(definition.name)
    if info is None:
        raise OutcomeUnknown(f"stream {definition.name} was to be created and is not there", stream=definition.name)
    return info


async def _update(
    transport: Transport, definition: Definition, info: StreamInfo, found: Sequence[Drift]
) -> StreamReport:
    """Set what may be set, and report what still differs afterwards."""
    kept = {each.key: each for each in found if info.messages and would_remove_history(definition, each)}
    config = definition.config()
    config.update({key: each.found for key, each in kept.items()})
    config.update({key: info.config[key] for key in OPERATORS_OWN if key in info.config})
    try:
        await transport.update_stream(config)
    except (Unreachable, OutcomeUnknown):
        raise
    except MeshError as error:
        return StreamReport(definition.name, "drifted", tuple(found), refused=error.message)
    left = compare(definition, (await _existing(transport, definition)).config)
    noted = tuple(_noted(each, kept) for each in left)
    return StreamReport(definition.name, "drifted" if noted else "updated", noted)


def _noted(drift: Drift, kept: dict[str, Drift]) -> Drift:
    if drift.key not in kept:
        return drift
    return msgspec.structs.replace(drift, note="left as it is: narrowing it would drop stored messages")


def _explained(definition: Definition, error: MeshError) -> AgentflowError:
    """A refused creation in terms of what the operator can change."""
    if error.fields.get("err_code") in _NO_ROOM:
        return ConfigError(
            f"the server has no room for {definition.name} ({definition.max_bytes} bytes): {error.message}",
            code="streams.no_room",
            stream=definition.name,
            hint="free disk, raise the server's max_file_store, or provision with --capacity below 1",
        )
    return error
