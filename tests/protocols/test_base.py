"""The base of protocol mixins: names, broadcast subjects, and who gets which message."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentflow.agent import Agent
from agentflow.envelope import Sealed
from agentflow.errors import AgentflowError, SubjectError
from agentflow.payloads import RunSignalled
from agentflow.subjects import agent_in, parse, stream_of
from agentflow.testing import envelope
from agentflow_protocols import ProtocolError, ProtocolMessage, ProtocolMixin, read_message


class Haggling(ProtocolMixin):
    """A protocol with two performatives, one of them plain."""

    protocol = "haggle"

    async def on_haggle_offer(self, message: ProtocolMessage) -> Any:
        """Answer an offer."""
        return ["offer", message.content["price"]]

    def on_haggle_start(self, message: ProtocolMessage) -> Any:
        """A performative with the name of an agent's hook."""
        return ["start", message.sender]


class Voting(ProtocolMixin):
    """Another protocol, with a performative of the same name."""

    protocol = "vote"
    on_vote_later = "not a method"

    async def on_vote_offer(self, message: ProtocolMessage) -> Any:
        """Take a candidate."""
        return ["candidate", message.topic]


class Trader(Haggling, Voting, Agent):
    """An agent that takes part in both."""

    id = "trader"


def message(protocol: str = "haggle", performative: str = "offer", **content: Any) -> ProtocolMessage:
    """A message from agent `ann`."""
    return ProtocolMessage("01J0000000000000000000000Z", protocol, performative, "ann", "cards", content)


async def test_each_message_goes_to_the_method_of_its_protocol_and_performative() -> None:
    """Two protocols in one agent do not get each other's messages, and no hook of the agent is called."""
    trader = Trader()
    assert await trader.receive(message(price=5)) == ["offer", 5]
    assert await trader.receive(message("vote")) == ["candidate", "cards"]
    assert await trader.receive(message("haggle", "start")) == ["start", "ann"]


@pytest.mark.parametrize(
    ("protocol", "performative", "code", "allowed"),
    [
        ("haggle", "accept", "protocol.unexpected", ("offer", "start")),
        ("haggle", "", "protocol.unexpected", ("offer", "start")),
        ("vote", "later", "protocol.unexpected", ("offer",)),
        ("txn", "prepare", "protocol.unknown", ("haggle", "vote")),
        ("", "start", "protocol.unknown", ("haggle", "vote")),
        ("message", "", "protocol.unknown", ("haggle", "vote")),
    ],
)
async def test_what_nobody_defined_is_refused(
    protocol: str, performative: str, code: str, allowed: tuple[str, ...]
) -> None:
    """Never ignored, and never handed to something that happens to have a fitting name."""
    with pytest.raises(ProtocolError) as refused:
        await Trader().receive(message(protocol, performative))
    assert (refused.value.error_code, refused.value.fields["allowed"]) == (code, allowed)


async def test_a_mixin_without_handlers_takes_nothing() -> None:
    """And says so."""

    class Silent(ProtocolMixin):
        protocol = "silent"

    with pytest.raises(ProtocolError, match="allowed: none"):
        await Silent().receive(message("silent"))


def test_protocols_and_performatives_are_listed() -> None:
    """The class's own protocol first, each once."""

    class Better(Trader):
        protocol = "barter"

    assert Trader.protocols() == ("haggle", "vote")
    assert Better.protocols() == ("barter", "haggle", "vote")
    assert ProtocolMixin.protocols() == ()
    assert Trader.performatives("haggle") == ("offer", "start")


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_a_broadcast_subject_is_stored_by_the_protocols_stream(topic: str) -> None:
    """Every topic within the grammar gives a subject that parses back to protocol and topic."""
    subject = Haggling.broadcast_subject(topic)
    assert (parse(subject).owner, parse(subject).item) == ("haggle", topic)
    assert stream_of(subject) == "AF_PROTOCOLS"


@given(st.text().filter(lambda text: not text.isascii() or not text.replace("_", "a").replace("-", "a").isalnum()))
def test_a_topic_outside_the_grammar_never_reaches_a_subject(topic: str) -> None:
    """Topics come from users and models."""
    with pytest.raises(SubjectError):
        Haggling.broadcast_subject(topic)


def test_each_mixin_broadcasts_to_its_own_protocol() -> None:
    """An agent with several asks the mixin it means."""
    assert Voting.broadcast_subject("cards") == "protocols.vote.cards"
    assert Trader.broadcast_subject("cards") == "protocols.haggle.cards"


def test_a_class_without_a_protocol_has_no_broadcast_subject() -> None:
    """There is nothing to name it by."""

    class Nameless(ProtocolMixin):
        pass

    with pytest.raises(ProtocolError) as refused:
        Nameless.broadcast_subject("cards")
    assert refused.value.error_code == "protocol.name"


@pytest.mark.parametrize("name", ["", "Haggle", "a.b", "a-b", "9lives", "*", "x" * 65, 7])
def test_a_name_that_could_not_be_a_schemas_is_refused_when_the_class_is_made(name: Any) -> None:
    """Not at the first message."""
    with pytest.raises(ProtocolError) as refused:
        type("Bad", (ProtocolMixin,), {"protocol": name})
    assert refused.value.error_code == "protocol.name"
    assert isinstance(refused.value, AgentflowError)


def sealed(schema: str, subject: str) -> Sealed:
    """An envelope as a protocol would send one; its payload is not looked at here."""
    made = envelope(RunSignalled("x"), subject, sender="ann")
    return Sealed(replace(made.envelope, schema=schema), made.hash, made.body)


def test_a_broadcast_is_read_with_its_topic() -> None:
    """Protocol and performative come from the schema, the topic from the subject."""
    read = read_message(sealed("haggle.offer/1", "protocols.haggle.cards"), {"price": 3})
    assert (read.protocol, read.performative, read.sender, read.topic) == ("haggle", "offer", "ann", "cards")
    assert read.content == {"price": 3}


def test_a_message_to_one_agent_has_no_topic() -> None:
    """It may arrive on the agent's own subject."""
    read = read_message(sealed("haggle.offer/12", agent_in("trader", "x")), {})
    assert (read.performative, read.topic) == ("offer", "")


@pytest.mark.parametrize(
    ("schema", "subject"),
    [
        ("offer/1", "protocols.haggle.cards"),
        ("haggle.offer.now/1", "protocols.haggle.cards"),
        ("haggle.offer", "protocols.haggle.cards"),
        ("vote.offer/1", "protocols.haggle.cards"),
    ],
)
def test_what_is_no_message_of_the_protocol_is_refused(schema: str, subject: str) -> None:
    """A schema without a performative, or one that was broadcast to another protocol."""
    with pytest.raises(ProtocolError) as refused:
        read_message(sealed(schema, subject), {})
    assert refused.value.error_code == "protocol.malformed"


async def test_a_subclass_refines_what_a_mixin_does() -> None:
    """Handlers are methods: overriding one and calling the inherited one works as everywhere."""

    class Stingy(Trader):
        async def on_haggle_offer(self, message: ProtocolMessage) -> Any:
            return ["half", *await super().on_haggle_offer(message)]

        async def on_haggle_accept(self, message: ProtocolMessage) -> Any:
            return "sold"

    assert await Stingy().receive(message(price=4)) == ["half", "offer", 4]
    assert await Stingy().receive(message("haggle", "accept")) == "sold"
    assert Stingy.performatives("haggle") == ("accept", "offer", "start")


async def test_what_a_handler_raises_is_not_hidden() -> None:
    """Dispatching adds nothing and catches nothing."""

    class Failing(ProtocolMixin):
        protocol = "fail"

        async def on_fail_now(self, message: ProtocolMessage) -> Any:
            raise KeyError("now")

    with pytest.raises(KeyError, match="now"):
        await Failing().receive(message("fail", "now"))
