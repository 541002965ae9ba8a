"""Contexts of the nats CLI: what we can do is done, what we cannot is refused, and nothing is ignored."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentflow.configuration.contexts import address_of
from agentflow.errors import ConfigError

EMPTY = {
    "description": "the office",
    "token": "",
    "user": "",
    "password": "",
    "creds": "",
    "nkey": "",
    "cert": "",
    "key": "",
    "ca": "",
    "nsc": "",
    "jetstream_domain": "",
    "tls_first": False,
    "color_scheme": "",
}
"""What `nats context save` writes beside the address."""


def address(folder: Path, name: str = "office", **members: Any) -> str:
    """The address a context stands for."""
    contexts = folder / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / f"{name}.json").write_text(json.dumps({**EMPTY, **members}), "utf-8")
    return address_of(name, {"XDG_CONFIG_HOME": str(folder)})


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"url": "nats://h:1"}, "nats://h:1"),
        ({"url": "h:1"}, "nats://h:1"),
        ({"url": "nats://h:1,nats://i:2", "user": "me", "password": "pw"}, "nats://me:pw@h:1,nats://me:pw@i:2"),
        ({"url": "nats://h:1", "token": "t0k"}, "nats://t0k@h:1"),
        ({"url": "nats://own:pw@h:1", "user": "me", "password": "pw"}, "nats://own:pw@h:1"),
        ({"url": ""}, "nats://127.0.0.1:4222"),
    ],
)
def test_an_address_with_user_and_password_is_made(members: dict[str, str], expected: str, tmp_path: Path) -> None:
    """As the connection takes it."""
    assert expected == address(tmp_path, **members)


@pytest.mark.parametrize(
    "members",
    [{"creds": "/etc/x.creds"}, {"nkey": "x"}, {"cert": "c", "key": "k"}, {"jetstream_domain": "hub"}, {"new": 1}],
)
def test_what_we_cannot_do_is_refused_by_name(members: dict[str, Any], tmp_path: Path) -> None:
    """A connection without what the context asks for would be another one."""
    with pytest.raises(ConfigError) as refused:
        address(tmp_path, url="nats://h:1", **members)

    assert "config.context_unsupported" == refused.value.error_code
    assert sorted(members) == refused.value.fields["members"]


def test_a_password_that_would_break_the_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    """It would be sent in part, or to another host."""
    with pytest.raises(ConfigError) as refused:
        address(tmp_path, url="nats://h:1", user="me", password="p@evil:1/")  # made up

    assert "config.context_unsupported" == refused.value.error_code
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere", "../office", "a/b", ""])
def test_a_context_that_is_not_there_is_told_with_those_that_are(name: str, tmp_path: Path) -> None:
    """And no path is one."""
    address(tmp_path)

    with pytest.raises(ConfigError, match="there is office") as refused:
        address_of(name, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert "config.context_unknown" == refused.value.error_code


@pytest.mark.parametrize("text", ["{", "[]", '{"url": 7}'])
def test_a_context_that_cannot_be_read_is_told(text: str, tmp_path: Path) -> None:
    """With its file."""
    address(tmp_path)
    file = tmp_path / "nats" / "context" / "office.json"
    file.write_text(text, "utf-8")

    with pytest.raises(ConfigError, match=str(file)) as refused:
        address_of("office", {"XDG_CONFIG_HOME": str(tmp_path)})
    assert "config.context_unreadable" == refused.value.error_code
