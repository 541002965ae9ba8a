"""Semantic versions (semver.org, 2.0.0): parsed, and put in order of precedence. Pure.

Build metadata (`+…`) is refused: it takes no part in precedence, so two definitions could not be told apart by it, and
`+` cannot stand in the key of a bucket.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering

from agentflow.errors import InputError

_NUMBER = r"(?:0|[1-9]\d*)"
_IDENTIFIER = rf"(?:{_NUMBER}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?", re.ASCII)
_MAX_LENGTH = 64


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version; ordered by precedence (section 11 of the specification)."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @property
    def is_release(self) -> bool:
        """Whether it is no pre-release."""
        return not self.prerelease

    def __str__(self) -> str:
        core = f"{self.major}.{self.minor}.{self.patch}"
        return f"{core}-{'.'.join(self.prerelease)}" if self.prerelease else core

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._rank() < other._rank()

    def _rank(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        """A release is above its pre-releases; numbers are below words; fewer identifiers are below more."""
        identifiers = tuple((False, int(i), "") if i.isdigit() else (True, 0, i) for i in self.prerelease)
        return self.major, self.minor, self.patch, self.is_release, identifiers


def parse_version(text: str) -> Version:
    """The version a text names; raises `InputError` (`version.invalid`) when it names none."""
    found = _VERSION.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if found is None:
        raise InputError(
            f"version {text[:80]!r} is not a semantic version such as 1.2.3 or 1.2.3-rc.1",
            code="version.invalid",
            found=text[:80],
            allowed="MAJOR.MINOR.PATCH[-PRERELEASE]",
        )
    major, minor, patch, prerelease = found.groups()
    return Version(int(major), int(minor), int(patch), tuple(prerelease.split(".")) if prerelease else ())


def latest(versions: Iterable[str]) -> str | None:
    """The highest release, or, where there are only pre-releases, the highest of them; None of nothing."""
    parsed = [parse_version(text) for text in versions]
    best = max((version for version in parsed if version.is_release), default=None) or max(parsed, default=None)
    return None if best is None else str(best)
