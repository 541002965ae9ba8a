"""The streams and buckets of a mesh, read from `definitions/*.json`.

Each file is the server's own stream configuration, complete and explicit, so `nats stream add --config FILE` takes it
as it is and a reader sees every setting. A bucket is the stream `KV_<bucket>`, an object store `OBJ_<name>`: the wire
form every NATS client shares. What a deployment chooses (replicas, room on disk, how long a heartbeat counts) is put
in by `fitted`; nothing else ever differs from the files.

Why they look as they do (architecture, section 3.4; measured on nats-server 2.15):

- Evidence denies delete and purge, and has message TTLs, schedules and rollups off: switching TTLs or schedules on
  silently switches deny-purge off and rollups on.
- Evidence is `discard: new`: a full stream refuses what comes next, it never drops what it has.
- `AF_TIMERS` needs schedules, and the server refuses schedules together with `discard: new`. So it has no limit that
  could discard an armed timer (`max_bytes: -1`), only one message a subject.
- Buckets and the object store need rollups and purges: that is how a key is purged and an object replaced.
"""

import functools
import math
from importlib.resources import files
from typing import Any, Literal

import msgspec

from agentflow.errors import ConfigError, InputError

SECOND = 1_000_000_000
"""Nanoseconds, the server's unit of time."""

REGISTRY_STREAM = "KV_AF_REGISTRY"
"""Its entries end after three heartbeats; how long that is, a deployment chooses."""

MIN_REGISTRY_TTL = 0.1
"""Seconds; the server takes no shorter age."""

_OPTIONAL = ("republish", "subject_delete_marker_ttl")


class Republish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the server sends on, once it has stored it, for core subscribers."""

    src: str
    """Pattern of the stored subjects."""
    dest: str
    """Where the copy goes; `{{wildcard(1)}}` is the first wildcard of `src`."""
    headers_only: bool


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stream, in the server's terms; times are nanoseconds, sizes bytes, and -1 is unlimited."""

    name: str
    description: str
    subjects: tuple[str, ...]
    storage: Literal["file", "memory"]
    retention: Literal["limits"]
    discard: Literal["new", "old"]
    """What a full stream does: refuse the new, or drop the old."""
    discard_new_per_subject: bool
    max_bytes: int
    max_age: int
    """0 keeps for ever."""
    max_msgs: int
    max_msgs_per_subject: int
    max_msg_size: int
    max_consumers: int
    duplicate_window: int
    num_replicas: int
    no_ack: bool
    sealed: bool
    deny_delete: bool
    deny_purge: bool
    allow_rollup_hdrs: bool
    allow_direct: bool
    mirror_direct: bool
    allow_msg_ttl: bool
    allow_msg_schedules: bool
    allow_msg_counter: bool
    allow_atomic: bool
    allow_batched: bool
    persist_mode: Literal["default"]
    """`async` would acknowledge before the disk has it, whatever the server's `sync_interval`."""
    compression: Literal["none"]
    consumer_limits: dict[str, int]
    republish: Republish | None = None
    subject_delete_marker_ttl: int = 0
    """0 leaves no markers."""

    @property
    def is_evidence(self) -> bool:
        """Whether what it holds may never be removed before its time."""
        return self.deny_delete and self.deny_purge

    def config(self) -> dict[str, Any]:
        """The configuration as the server takes it; what is optional and not set is left out."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {key: value for key, value in found.items() if value or key not in _OPTIONAL}


@functools.cache
def definitions() -> tuple[Definition, ...]:
    """Every stream of a mesh, sorted by name."""
    folder = files("agentflow_streams") / "definitions"
    found = (msgspec.json.decode(each.read_bytes(), type=Definition) for each in folder.iterdir())
    return tuple(sorted(found, key=lambda definition: definition.name))


def definition_of(name: str) -> Definition:
    """The stream called `name`; raises `InputError` for one that is not part of a mesh."""
    for definition in definitions():
        if definition.name == name:
            return definition
    known = ", ".join(each.name for each in definitions())
    raise InputError(f"a mesh has no stream {name!r}", code="stream.unknown", found=name, allowed=known)


def evidence() -> tuple[str, ...]:
    """The names of the streams that hold evidence, sorted."""
    return tuple(definition.name for definition in definitions() if definition.is_evidence)


def fitted(definition: Definition, *, replicas: int, registry_ttl: float, capacity: float) -> Definition:
    """A definition with what a deployment chooses.

    `registry_ttl` is in seconds (three heartbeats); `capacity` multiplies the room of every stream that has a limit.
    Raises `ConfigError` for a choice the server could not take.
    """
    _check_choices(replicas, registry_ttl, capacity)
    room = max(1, round(definition.max_bytes * capacity)) if definition.max_bytes > 0 else definition.max_bytes
    chosen = msgspec.structs.replace(definition, num_replicas=replicas, max_bytes=room)
    if definition.name != REGISTRY_STREAM:
        return chosen
    age = round(registry_ttl * SECOND)
    return msgspec.structs.replace(
        chosen,
        max_age=age,
        duplicate_window=min(age, definition.duplicate_window),
        subject_delete_marker_ttl=max(1, math.ceil(registry_ttl)) * SECOND,  # whole seconds, at least one
    )


def _check_choices(replicas: int, registry_ttl: float, capacity: float) -> None:
    choices = (
        ("replicas", replicas, 1 <= replicas <= 5, "1 to 5"),
        ("registry_ttl", registry_ttl, MIN_REGISTRY_TTL <= registry_ttl < math.inf, f"at least {MIN_REGISTRY_TTL} s"),
        ("capacity", capacity, 0 < capacity < math.inf, "a factor above 0"),
    )
    for name, found, fine, allowed in choices:
        if not fine:
            raise ConfigError(
                f"{name} is {found!r}; allowed is {allowed}", code="streams.choice", found=found, allowed=allowed
            )
