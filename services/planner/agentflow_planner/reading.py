"""Typed fields out of a YAML tree, with everything that is wrong collected instead of raised. Pure.

A reader never stops at the first problem: it reports what it found and what is allowed, gives back None or a default,
and goes on, so that one run of `agentflow apply` shows all there is to mend.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from agentflow.errors import SubjectError
from agentflow.ids import check_token
from agentflow_planner.durations import ALLOWED, parse_duration
from agentflow_planner.findings import Finding, did_you_mean, excerpt, shorten
from agentflow_planner.yaml_tree import Mapping, Mark, Node, Scalar, Trouble, read_as
from agentflow_planner.yaml_tree import Sequence as YamlSequence

T = TypeVar("T")
Path: TypeAlias = tuple[str | int, ...]
"""Keys and indexes from the root of the file: `("states", "classify", "transitions", 0, "to")`."""

TEXT = "text in quotes"
ID_RULE = "1 to 64 of A-Z a-z 0-9 _ -"


class Report:
    """The findings of one file."""

    def __init__(self, file: str, lines: Sequence[str]) -> None:
        self.file = file
        self.lines = lines
        self.findings: list[Finding] = []

    def add(
        self,
        mark: Mark,
        code: str,
        message: str,
        *,
        found: object = "",
        allowed: Iterable[str] = (),
        suggestion: str = "",
    ) -> None:
        """Report something at a place."""
        line = self.lines[mark.line - 1] if 0 < mark.line <= len(self.lines) else ""
        shown, caret = excerpt(line, mark.column)
        finding = Finding(
            file=self.file,
            line=mark.line,
            column=mark.column,
            code=f"definition.{code}" if "." not in code else code,
            message=message,
            found=shorten(found),
            allowed=tuple(allowed),
            excerpt=shown,
            caret=caret,
            suggestion=suggestion,
        )
        if finding not in self.findings:
            self.findings.append(finding)

    def trouble(self, trouble: Trouble) -> None:
        """Report what reading the YAML brought up."""
        self.add(
            trouble.mark,
            trouble.code,
            trouble.message,
            found=trouble.found,
            allowed=trouble.allowed,
            suggestion=trouble.suggestion,
        )

    def sorted(self) -> tuple[Finding, ...]:
        """All findings in the order of the file."""
        return tuple(sorted(self.findings, key=lambda finding: (finding.line, finding.column, finding.code)))


class Fields:
    """The fields of one mapping."""

    def __init__(self, report: Report, node: Mapping, what: str, allowed: Iterable[str]) -> None:
        self.report = report
        self.node = node
        self.what = what
        names = tuple(allowed)
        for key, _ in node.entries:
            if key.text not in names:
                message = f"{what} has no key {key.text!r}"
                hint = did_you_mean(key.text, names)
                report.add(key.mark, "unknown_key", message, found=key.text, allowed=names, suggestion=hint)

    def __contains__(self, key: str) -> bool:
        return self.node.get(key) is not None

    def node_of(self, key: str, *, required: bool = False) -> Node | None:
        """The node of a field; a missing one is reported if it is required."""
        node = self.node.get(key)
        if node is None and required:
            self.report.add(self.node.mark, "missing_key", f"{self.what} needs the key {key!r}", allowed=(key,))
        return node

    def text(self, key: str, *, required: bool = False, empty: bool = False) -> str:
        """A text; empty when it is missing or wrong, or if it may be."""
        node = self.node_of(key, required=required)
        return "" if node is None else text_of(self.report, node, key, empty=empty)

    def token(self, key: str, *, required: bool = False) -> str:
        """An id; empty when it is missing or wrong."""
        node = self.node_of(key, required=required)
        return "" if node is None else token_of(self.report, node, key)

    def number(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        node = self.node_of(key)
        if node is None:
            return default
        value = node.value if isinstance(node, Scalar) and not node.ambiguity else None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            message = f"{key} is a whole number from {least} to {most}"
            self.report.add(node.mark, "invalid_value", message, found=described(node), allowed=(f"{least}..{most}",))
            return default
        return value

    def duration(self, key: str, default: float, *, zero: bool = False) -> float:
        """A duration in seconds."""
        node = self.node_of(key)
        if node is None:
            return default
        try:
            if not isinstance(node, Scalar) or (node.ambiguity and not node.style):
                raise ValueError("not a duration")
            return parse_duration(node.value, zero=zero)
        except ValueError as error:
            message = f"{key}: {error}"
            self.report.add(node.mark, "invalid_value", message, found=described(node), allowed=ALLOWED)
            return default

    def mapping(self, key: str) -> Mapping | None:
        """A mapping; None when it is missing, empty or wrong."""
        node = self.node_of(key)
        return None if node is None else mapping_of(self.report, node, key)

    def items(self, key: str, read: Callable[[Node, int], T | None]) -> tuple[T, ...]:
        """The items of a list, read one by one; empty when it is missing or wrong."""
        node = self.node_of(key)
        if node is None or is_null(node):
            return ()
        if not isinstance(node, YamlSequence):
            self.report.add(node.mark, "wrong_type", f"{key} is a list", found=described(node), allowed=("[…]",))
            return ()
        read_items = (read(item, index) for index, item in enumerate(node.items))
        return tuple(item for item in read_items if item is not None)


def mapping_of(report: Report, node: Node, what: str) -> Mapping | None:
    """A node that has to be a mapping; None, unreported, when it is null."""
    if isinstance(node, Mapping):
        return node
    if not is_null(node):
        report.add(node.mark, "wrong_type", f"{what} is a mapping", found=described(node), allowed=("key: value",))
    return None


def text_of(report: Report, node: Node, what: str, *, empty: bool = False) -> str:
    """A node that has to be a text; empty when it is not, or if it may be."""
    if isinstance(node, Scalar) and isinstance(node.value, str) and not node.ambiguity:
        if not node.text and not empty:
            report.add(node.mark, "invalid_value", f"{what} is empty", found="''", allowed=(TEXT,))
        return node.text
    if not isinstance(node, Scalar):
        report.add(node.mark, "wrong_type", f"{what} is a text", found=described(node), allowed=(TEXT,))
    elif node.value is None:
        report.add(node.mark, "wrong_type", f"{what} is a text, and nothing is given", found="null", allowed=(TEXT,))
    else:
        reading = node.ambiguity or read_as(node.value)
        message = f"{what} is a text, but without quotes this is read as {reading}: put it in quotes"
        hint = f'write {what}: "{node.text}"'
        report.add(node.mark, "ambiguous", message, found=node.text, allowed=(TEXT,), suggestion=hint)
    return ""


def token_of(report: Report, node: Node, what: str) -> str:
    """A node that has to be an id; empty when it is not."""
    text = text_of(report, node, what)
    try:
        return check_token(text, what) if text else ""
    except SubjectError:
        report.add(node.mark, "invalid_name", f"{what} is no id", found=text, allowed=(ID_RULE,))
        return ""


def json_of(report: Report, node: Node, what: str) -> Any:
    """A node as a JSON value; what has no clear one is reported."""
    match node:
        case Mapping():
            return {key.text: json_of(report, value, f"{what}.{key.text}") for key, value in node.entries}
        case YamlSequence():
            return [json_of(report, item, f"{what}[{index}]") for index, item in enumerate(node.items)]
        case Scalar():
            if node.ambiguity:
                message = f"{what}: {node.text!r} without quotes could be read as {node.ambiguity}"
                hint = f'write "{node.text}" for the text, or true, false or a plain number'
                report.add(node.mark, "ambiguous", message, found=node.text, suggestion=hint)
            return node.value


def is_null(node: Node) -> bool:
    """Whether nothing is given."""
    return isinstance(node, Scalar) and node.value is None


def described(node: Node) -> str:
    """A node as a finding shows it."""
    match node:
        case Mapping():
            return "a mapping"
        case YamlSequence():
            return "a list"
        case Scalar():
            return "null" if node.value is None else node.text or "''"


def at(root: Node | None, path: Path) -> Node | None:
    """The node a path leads to; None where there is none."""
    node = root
    for step in path:
        if isinstance(node, Mapping) and isinstance(step, str):
            node = node.get(step)
        elif isinstance(node, YamlSequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            return None
    return node


def place_of(root: Node | None, path: Path, *, key: bool = False) -> Mark:
    """The nearest place to a path: its value (or key), else that of what should hold it."""
    for length in range(len(path), 0, -1):
        holder, step = at(root, path[: length - 1]), path[length - 1]
        name = holder.key(step) if key and isinstance(holder, Mapping) and isinstance(step, str) else None
        node = name or at(root, path[:length])
        if node is not None:
            return node.mark
    return root.mark if root is not None else Mark(1, 1)
