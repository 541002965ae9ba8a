"""What is wrong with a definition, each with its place, what was found and what is allowed; and how it is shown.

A finding's `code` is stable (documented, safe to match on); everything else is for people.
"""

import difflib
from collections.abc import Iterable, Sequence

import msgspec

from agentflow.errors import DefinitionError

MAX_EXCERPT = 160
"""Characters of a line that are shown; of a longer one, those around the place."""

MAX_FOUND = 80
"""Characters of what was found that are shown."""


class Finding(msgspec.Struct, frozen=True):
    """One thing wrong with a definition."""

    file: str
    """As it was given, for people to click on."""
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    code: str
    """Such as `definition.unknown_state`."""
    message: str
    found: str = ""
    allowed: tuple[str, ...] = ()
    excerpt: str = ""
    """The line of the file, or the part of it around the place."""
    caret: int = 0
    """Where in the excerpt the place is, from 0."""
    suggestion: str = ""

    @property
    def place(self) -> str:
        """`file:line:column`."""
        return f"{self.file}:{self.line}:{self.column}"


def excerpt(line: str, column: int) -> tuple[str, int]:
    """The part of a line worth showing, and where in it the `column` (from 1) is."""
    at = min(max(column - 1, 0), len(line))
    text = "".join(char if char.isprintable() else " " for char in line)
    if len(text) <= MAX_EXCERPT:
        return text, at
    start = max(0, min(at - MAX_EXCERPT // 2, len(text) - MAX_EXCERPT))
    window = text[start : start + MAX_EXCERPT]
    return ("…" + window, at - start + 1) if start else (window, at)


def shorten(value: object) -> str:
    """A value as a finding shows it: one line, bounded."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_FOUND else text[: MAX_FOUND - 1] + "…"


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest allowed name, or nothing."""
    close = difflib.get_close_matches(found, list(allowed), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def render_finding(finding: Finding) -> str:
    """One finding for a terminal: the place and message, the line with a caret, and what helps."""
    lines = [f"{finding.place}: {finding.code}: {finding.message}"]
    if finding.excerpt:
        lines += [f"    {finding.excerpt}", f"    {' ' * finding.caret}^"]
    if finding.found:
        lines.append(f"  found:   {finding.found}")
    if finding.allowed:
        lines.append(f"  allowed: {', '.join(finding.allowed)}")
    if finding.suggestion:
        lines.append(f"  hint:    {finding.suggestion}")
    return "\n".join(lines)


def render_findings(findings: Sequence[Finding]) -> str:
    """All findings for a terminal, with a count at the end; empty text where there are none."""
    if not findings:
        return ""
    count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    return "\n\n".join([*map(render_finding, findings), count])


def refusal(path: str, findings: Sequence[Finding]) -> DefinitionError:
    """The error a definition with findings is refused with; it carries them all in `fields["findings"]`."""
    first = findings[0]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return DefinitionError(
        f"{first.place}: {first.message}{more}",
        code=first.code,
        findings=tuple(findings),
        path=path,
        found=first.found,
        allowed=first.allowed,
    )
