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


CODES: dict[str, str] = {
    "definition.yaml": "the file is no YAML the planner reads: broken, too large, tagged, or more than one document",
    "definition.duplicate_key": "a mapping has the same key twice",
    "definition.ambiguous": "without quotes YAML could read this as something else than it looks like",
    "definition.unknown_key": "there is no such key here",
    "definition.missing_key": "a key that is needed is missing or holds nothing",
    "definition.wrong_type": "a mapping, a list or a text is expected here",
    "definition.invalid_value": "the value is out of its range or form",
    "definition.invalid_name": "the name cannot be an id, or cannot be used in expressions",
    "definition.reserved_name": "the name is one a run uses itself",
    "definition.unknown_planner": "there is no such planner",
    "definition.input_schema": "input_schema is no sound JSON Schema",
    "definition.unknown_state": "there is no such state",
    "definition.unreachable_state": "nothing leads to the state",
    "definition.no_path_to_end": "no final state can be reached from the state",
    "definition.no_way_out": "the state leads nowhere when its step succeeds",
    "definition.one_action": "a state does exactly one thing: agent, tool or signal",
    "definition.final_state_acts": "a final state does nothing and leads nowhere",
    "definition.duplicate_final_state": "a final state is named twice",
    "definition.initial_is_final": "a run would end where it starts",
    "definition.dead_transition": "a transition before this one always holds",
    "definition.timeout_too_long": "a state may take longer than its run",
    "definition.misplaced_key": "the key means nothing in this kind of state",
    "definition.undeclared_agent": "no agent of that id is declared",
    "definition.undeclared_tool": "no tool of that id is declared",
    "definition.cel_syntax": "the expression is no CEL",
    "definition.cel_type": "an operator or function cannot take these kinds of values",
    "definition.cel_unknown_function": "there is no such function",
    "definition.cel_unknown_variable": "there is no such variable",
    "definition.cel_too_large": "the expression is too long or nested too deeply",
    "definition.not_a_condition": "the expression can only yield something else than true or false",
    "definition.unknown_output": "no state of that name has an output",
    "definition.unknown_context": "there is no such constant",
}
"""Every code a finding can have, and what it means."""


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


def nearest(found: str, allowed: Iterable[str]) -> str:
    """The allowed name that was probably meant; empty if none is close."""
    return next(iter(difflib.get_close_matches(found, list(allowed), n=1, cutoff=0.6)), "")


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest allowed name, or nothing."""
    close = nearest(found, allowed)
    return f"did you mean {close!r}?" if close else ""


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
