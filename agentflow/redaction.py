"""Secrets kept out of text: the last line of defence of everything that is written for people. Pure.

The first line is that secrets and payloads are not handed to a log at all. What comes here nevertheless, in the text of
an error of some library for instance, is looked at twice: by its key (`password`, `api_key`) and by its form (a
password in a URL, a bearer token, a key in PEM). Values this process knows to be secret are found wherever they stand.
"""

import itertools
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "[redacted]"

MAX_DEPTH = 8
"""Levels of lists and objects that are looked into; what lies deeper is not shown."""

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "auth",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "jwt",
        "nkey",
        "passwd",
        "password",
        "passphrase",
        "pwd",
        "secret",
        "secrets",
        "seed",
        "token",
    }
)
_KINDS_OF_KEY = frozenset({"access", "api", "encryption", "private", "secret", "service", "signing"})

_FORMS = re.compile(
    r"""
    (?P<pem>-----BEGIN\ [A-Z0-9 ]{0,40}KEY-----[\s\S]*?(?:-----END\ [A-Z0-9 ]{0,40}KEY-----|\Z))
  | (?P<url>(?<=://)[^\s/@'"<>]{1,500}@)
  | (?P<jwt>\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*)
  | (?P<key>\b(?:sk|pk|rk)-[A-Za-z0-9_-]{8,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bxox[abps]-[A-Za-z0-9-]{10,}
            |\bAKIA[0-9A-Z]{16}\b|\bS[UAONCX][A-Z2-7]{56}\b)
  | (?P<said>(?P<before>\b(?i:bearer|basic)\ +)[A-Za-z0-9._~+/=-]{8,})
  | (?P<named>(?P<name>(?i:(?:password|passwd|passphrase|pwd|secret|(?:api|access|private|signing|encryption)[_-]?key
                |authorization|credentials?|access[_-]?token|token))
            ["']?\s*[=:]\s*)(?:(?i:bearer|basic)\ +)?(?:"[^"]{1,500}"|'[^']{1,500}'|[^\s,;&"']{1,500}))
    """,
    re.VERBOSE,
)


class Redactor:
    """Redacts; knows the secrets of this process besides the forms everybody knows."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """The text without what looks like a secret."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _FORMS.sub(_hide, text)

    def value(self, value: Any, key: str = "", depth: int = 0) -> Any:
        """A value that is about to be written under `key`: text, or lists and objects of it; what else it is, it stays."""
        if isinstance(value, str):
            return HIDDEN if value and is_secret(key) else self.text(value)
        if isinstance(value, bytes | bytearray):
            return HIDDEN if is_secret(key) else self.text(repr(value))
        if depth >= MAX_DEPTH and isinstance(value, dict | list | tuple):
            return HIDDEN
        if isinstance(value, dict):
            return {name: self.value(each, f"{key} {name}", depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each, key, depth + 1) for each in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(repr(value))


def is_secret(key: str) -> bool:
    """Whether a key says that its value is a secret: `dbPassword`, `AUTHORIZATION`, `api-key`; not `key`, not `tokens`."""
    words = [word.lower() for word in _WORD.findall(key)]
    if _SECRET_WORDS.intersection(words):
        return True
    return any(word == "key" and before in _KINDS_OF_KEY for before, word in itertools.pairwise(words))


def secrets_of(url: str) -> list[str]:
    """The passwords and tokens inside one or several URLs (by comma), as they are written and as they are meant."""
    found = []
    for part in url.split(","):
        try:
            address = urlsplit(part.strip())
        except ValueError:
            continue
        given = address.password or (address.username if "@" in address.netloc else None)
        if given:
            found += [given, unquote(given)]
    return found


def _hide(found: re.Match[str]) -> str:
    """What stands in its place: the name stays, the value goes."""
    if found["url"]:
        return f"{HIDDEN}@"
    if found["said"]:
        return found["before"] + HIDDEN
    if found["named"]:
        return found["name"] + HIDDEN
    return HIDDEN
