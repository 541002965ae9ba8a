"""What every protocol mixin rests on: its protocol's name, its broadcast subjects, one method for each performative.

    class Haggling(ProtocolMixin):
        protocol = "haggle"

        async def on_haggle_offer(self, message: ProtocolMessage) -> Any: ...

A performative travels as a schema: `haggle.offer/1` is the performative `offer` of the protocol `haggle`. Method names
carry both, because an agent may take part in several protocols, and because `on_start` and its like are hooks of the
agent. A performative nobody defined is refused, never ignored.

That is all there is so far: no protocol is built on it yet, and no service delivers protocol messages. Whoever receives
one hands it to `receive`.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agentflow.envelope import Sealed
from agentflow.ids import check_token
from agentflow.subjects import parse
from agentflow_protocols.errors import ProtocolError

_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_SCHEMA = re.compile(r"([a-z][a-z0-9_]*)\.([a-z][a-z0-9_]*)/[1-9][0-9]{0,3}\Z")


@dataclass(frozen=True, slots=True)
class ProtocolMessage:
    """A message of a protocol as a mixin sees it."""

    id: str
    """The envelope's id."""
    protocol: str
    performative: str
    """What the sender does with it: offers, accepts, refuses …"""
    sender: str
    topic: str = ""
    """The topic it was broadcast to; empty when it was sent to one agent."""
    content: Mapping[str, Any] = field(default_factory=dict)


def read_message(sealed: Sealed, content: Mapping[str, Any]) -> ProtocolMessage:
    """The protocol message an envelope is; `content` is its payload, decoded by whoever knows its schema.

    Raises `ProtocolError` (`protocol.malformed`) for a schema that names no performative, or when the envelope was
    broadcast to another protocol than its schema names.
    """
    envelope = sealed.envelope
    named = _SCHEMA.match(envelope.schema)
    if named is None:
        raise ProtocolError(
            f"schema {envelope.schema!r} is not of the form protocol.performative/version", code="protocol.malformed"
        )
    protocol, performative = named.groups()
    place = parse(envelope.subject)
    if place.kind == "protocol" and place.owner != protocol:
        raise ProtocolError(
            f"a message of protocol {protocol!r} was broadcast to {envelope.subject!r}", code="protocol.malformed"
        )
    topic = place.item if place.kind == "protocol" else ""
    return ProtocolMessage(envelope.id, protocol, performative, envelope.sender, topic, content)


class ProtocolMixin:
    """Base of protocol mixins; a mixin names its protocol, an agent may have several mixins."""

    protocol: ClassVar[str] = ""
    """The protocol of this mixin: `[a-z][a-z0-9_]*`, at most 64 characters."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        named = cls.__dict__.get("protocol")
        if named is not None and (not isinstance(named, str) or not _WORD.match(named)):
            raise ProtocolError(
                f"{cls.__name__} names the protocol {named!r:.80}; allowed is [a-z][a-z0-9_]*", code="protocol.name"
            )

    @classmethod
    def protocols(cls) -> tuple[str, ...]:
        """Every protocol this class takes part in, its own first."""
        named = (base.__dict__.get("protocol") for base in cls.__mro__)
        return tuple(dict.fromkeys(name for name in named if name))

    @classmethod
    def broadcast_subject(cls, topic: str) -> str:
        """Where this mixin's protocol broadcasts to everyone who follows `topic`, such as a capability.

        Raises `SubjectError` for a topic outside the grammar, `ProtocolError` (`protocol.name`) on a class without a
        protocol. Of a class with several protocols it is the first one's: ask the mixin you mean.
        """
        if not cls.protocol:
            raise ProtocolError(f"{cls.__name__} names no protocol", code="protocol.name")
        return f"protocols.{cls.protocol}.{check_token(topic, 'topic')}"

    @classmethod
    def performatives(cls, protocol: str) -> tuple[str, ...]:
        """The performatives of `protocol` this class takes, sorted."""
        prefix = f"on_{protocol}_"
        return tuple(name.removeprefix(prefix) for name in sorted(dir(cls)) if _is_handler(cls, name, prefix))

    async def receive(self, message: ProtocolMessage) -> Any:
        """Hand a message to `on_<protocol>_<performative>`, async or plain, and return what that returns.

        Raises `ProtocolError`: `protocol.unknown` for a protocol this agent takes no part in, `protocol.unexpected` for
        a performative it does not take.
        """
        if message.protocol not in self.protocols():
            raise _refused(message, "protocol.unknown", self.protocols())
        if message.performative not in self.performatives(message.protocol):
            raise _refused(message, "protocol.unexpected", self.performatives(message.protocol))
        found = getattr(self, f"on_{message.protocol}_{message.performative}")(message)
        return await found if inspect.isawaitable(found) else found


def _is_handler(cls: type, name: str, prefix: str) -> bool:
    return name.startswith(prefix) and len(name) > len(prefix) and callable(getattr(cls, name))


def _refused(message: ProtocolMessage, code: str, allowed: tuple[str, ...]) -> ProtocolError:
    found = f"{message.protocol}.{message.performative}"
    return ProtocolError(
        f"message {message.id} from {message.sender!r}: {found} is not taken here; allowed: {', '.join(allowed) or 'none'}",
        code=code,
        found=found,
        allowed=allowed,
    )
