"""What is wrong with a setting: where it stands, what was found, what is allowed. Pure."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    where: str
    """`file:line`, the name of a variable, or a flag."""
    found: str
    """Never the value of a secret."""
    allowed: str
    code: str
    """`config.invalid`, `config.unknown_key`, `config.unknown_variable`, `config.unreadable`, `config.context_…`."""

    def __str__(self) -> str:
        told = f"{self.where}: found {self.found}" if self.found else self.where
        return f"{told}; {self.allowed} [{self.code}]" if self.found else f"{told}: {self.allowed} [{self.code}]"


def closest(given: str, known: Iterable[str]) -> str:
    """The known name that is most like the one given; empty where none is."""
    close = difflib.get_close_matches(given, sorted(set(known)), n=1, cutoff=0.75)
    return close[0] if close else ""


def suggestion(given: str, known: Iterable[str]) -> str:
    """What is allowed instead of an unknown name, in words."""
    names = sorted(set(known))
    if close := closest(given, names):
        return f"did you mean {close}?"
    return f"allowed are {', '.join(names)}"
