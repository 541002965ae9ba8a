"""A model's reply is asked for over the real protocol; whatever the server does becomes an error of ours."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_support_desk import Hit, check_reply, model_reply
from agentflow_support_desk.errors import MissingExtraError, ModelRefused, ModelUnavailable, NoArticleError
from agentflow_support_desk.model import prompt

HIT = Hit("change-pin", "Change the PIN", "change_pin", "Go to a cash machine.", 2.0)


def completion(content: str | None) -> bytes:
    """What a server of the protocol sends for an answer."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()


@contextmanager
def serving(status: int, body: bytes, kind: str = "application/json") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on this machine that gives one answer to everything; yields its address and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append(
                {"path": self.path, "key": self.headers["Authorization"], **json.loads(self.rfile.read(length))}
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, as the client asks for one even where the server does not."""
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")


@pytest.mark.usefixtures("key")
async def test_a_reply_is_the_models_text_in_our_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, address and model come from the environment; greeting, sign-off and reference from us."""
    with serving(200, completion("Go to any cash machine.\n")) as (address, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("AF_DEMO_MODEL", "small-one")
        draft = await model_reply("new pin how?", "change_pin", [HIT])

    assert ("change-pin", []) == (draft.article_id, check_reply(draft.body))
    assert "Hello,\n\nthank you" in draft.body
    assert "\n\nGo to any cash machine.\n\n" in draft.body
    assert [("/v1/chat/completions", "Bearer made-up", "small-one")] == [
        (a["path"], a["key"], a["model"]) for a in asked
    ]


@pytest.mark.usefixtures("key")
async def test_the_default_model_is_asked_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the key has to be set."""
    with serving(200, completion("Yes.")) as (address, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        await model_reply("new pin how?", "change_pin", [HIT])

    assert ["gpt-4o-mini"] == [each["model"] for each in asked]


@given(ticket=st.text(max_size=4_000), intent=st.text())
def test_a_ticket_is_data_in_the_prompt(ticket: str, intent: str) -> None:
    """It stands in one JSON string of the user message, whole and unchanged; the system prompt never varies."""
    system, user = prompt(ticket, intent, [HIT])

    assert prompt("", "", [])[0] == system
    assert {"ticket", "intent", "articles"} == set(json.loads(user))
    assert (ticket, intent) == (json.loads(user)["ticket"], json.loads(user)["intent"])


def test_a_very_long_ticket_is_cut() -> None:
    """Nobody pays for a novel."""
    assert 4_000 == len(json.loads(prompt("x" * 100_000, "change_pin", [HIT])[1])["ticket"])


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        pytest.param(429, b'{"error": {"message": "slow down"}}', ModelUnavailable, id="too many requests"),
        pytest.param(500, b"{}", ModelUnavailable, id="server's own error"),
        pytest.param(503, b"<html>", ModelUnavailable, id="behind a proxy"),
        pytest.param(200, completion(""), ModelUnavailable, id="empty answer"),
        pytest.param(200, completion(None), ModelUnavailable, id="no answer"),
        pytest.param(400, b'{"error": {"message": "bad"}}', ModelRefused, id="bad request"),
        pytest.param(401, b'{"error": {"message": "no"}}', ModelRefused, id="wrong key"),
        pytest.param(404, b'{"error": {"message": "no"}}', ModelRefused, id="unknown model"),
    ],
)
async def test_what_the_server_does_wrong_says_whether_to_retry(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, error: type[ModelUnavailable] | type[ModelRefused]
) -> None:
    """It is asked once; trying again is the caller's decision, and the error's class tells whether it makes sense."""
    with serving(status, body) as (address, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        with pytest.raises(error) as caught:
            await model_reply("new pin how?", "change_pin", [HIT])

    assert 1 == len(asked)
    assert (error is ModelUnavailable) == (caught.value.retry_after is not None)


@pytest.mark.usefixtures("key")
async def test_a_server_of_another_kind_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web page with status 200, as from a wrong address, is noticed."""
    with serving(200, b"<html>hello</html>", "text/html") as (address, _):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        with pytest.raises(ModelUnavailable):
            await model_reply("new pin how?", "change_pin", [HIT])


@pytest.mark.usefixtures("key")
async def test_a_server_that_is_not_there_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is worth another try."""
    with serving(200, b"") as (address, _):
        pass
    monkeypatch.setenv("OPENAI_BASE_URL", address)

    with pytest.raises(ModelUnavailable):
        await model_reply("new pin how?", "change_pin", [HIT])


async def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is enough for the servers people run themselves."""
    with serving(200, completion("Yes.")) as (address, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        await model_reply("new pin how?", "change_pin", [HIT])

    assert 1 == len(asked)


async def test_without_a_key_no_model_is_asked() -> None:
    """Trying again will not bring one."""
    with pytest.raises(ModelRefused):
        await model_reply("new pin how?", "change_pin", [HIT])


async def test_without_an_article_no_model_is_asked() -> None:
    """A model without facts would make some up."""
    with pytest.raises(NoArticleError):
        await model_reply("new pin how?", "change_pin", [])


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed openai is told how."""
    monkeypatch.setitem(sys.modules, "openai", None)

    with pytest.raises(MissingExtraError, match=r"agentflow-support-desk\[openai\]"):
        await model_reply("new pin how?", "change_pin", [HIT])
