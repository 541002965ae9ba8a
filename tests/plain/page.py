"""The console blocks of a page: command lines, each with what the page says that it prints."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "nats-cli.md"

ANY = "…"
"""Stands for what differs from time to time."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One command of the page."""

    text: str
    output: str
    """Below it, as the page shows it."""

    @property
    def argv(self) -> list[str]:
        """As a shell takes it apart."""
        return shlex.split(self.text)

    def promises(self, printed: str) -> bool:
        """Whether what a command printed is what the page shows, space aside."""
        pattern = ".*".join(re.escape(part) for part in _packed(self.output).split(ANY))
        return re.fullmatch(pattern, _packed(printed), re.DOTALL) is not None


def shown_in(page: str) -> Iterator[Shown]:
    """Every command in the console blocks of a page."""
    for block in re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield Shown(command, output)


def _packed(text: str) -> str:
    return "".join(text.split())
