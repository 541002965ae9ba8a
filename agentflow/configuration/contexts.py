"""Contexts of the nats CLI: `$XDG_CONFIG_HOME/nats/context/<name>.json`, as far as our connection can do what they say.

What it cannot do is refused by name: a context that asks for credentials or TLS must not become a connection without.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agentflow.errors import ConfigError
from agentflow.ids import TOKEN

USED = ("url", "user", "password", "token")
"""Members that become part of the address."""

HARMLESS = frozenset({"description", "color_scheme", "nsc"})
"""Members that say nothing about the connection."""

_PLAIN = str.maketrans("", "", "/@:?#%, \t\r\n")


def folder_of(environment: Mapping[str, str]) -> Path:
    """Where the contexts are."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "nats" / "context"


def address_of(name: str, environment: Mapping[str, str]) -> str:
    """The URL a context stands for, its user and password included.

    Raises `ConfigError`: `config.context_unknown`, `config.context_unreadable`, `config.context_unsupported`.
    """
    folder = folder_of(environment)
    path = folder / f"{name}.json"
    if not TOKEN.match(name.replace(".", "-")) or not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.json"))) or "none"
        raise ConfigError(
            f"there is no context {name[:80]!r} in {folder}; there is {known}", code="config.context_unknown", name=name
        )
    return _address(path, _members(path))


def _members(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}", code="config.context_unreadable") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object", code="config.context_unreadable")
    return found


def _address(path: Path, members: Mapping[str, Any]) -> str:
    given = {name: value for name, value in members.items() if value}
    beyond = sorted(set(given) - set(USED) - HARMLESS)
    if beyond:
        raise ConfigError(
            f"{path} asks for {', '.join(beyond)}, which is not supported; supported are {', '.join(USED)}",
            code="config.context_unsupported",
            members=beyond,
        )
    if not all(isinstance(given.get(name, ""), str) for name in USED):
        raise ConfigError(f"{path}: {', '.join(USED)} must be text", code="config.context_unreadable")
    user = given.get("token") or given.get("user", "")
    secret = given.get("password", "")
    if any(text != text.translate(_PLAIN) for text in (user, secret)):
        raise ConfigError(
            f"{path}: a user, password or token with one of / @ : ? # % , or a space is not supported",
            code="config.context_unsupported",
        )
    info = f"{user}:{secret}@" if secret else f"{user}@" if user else ""
    servers = [part.strip() for part in given.get("url", "nats://127.0.0.1:4222").split(",") if part.strip()]
    return ",".join(_with_user(server, info) for server in servers)


def _with_user(server: str, info: str) -> str:
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    if not info or "@" in parts.netloc:
        return urlunsplit(parts)
    return urlunsplit(parts._replace(netloc=info + parts.netloc))
