"""The one entry for a definition that comes from outside: everything that is wrong with it, from YAML to CEL. Pure.

`agentflow apply` and the planner service both go through `check_definition`; what it accepts can be run.
"""

import re
from dataclasses import dataclass

from agentflow_planner.conditions import Conditions
from agentflow_planner.conditions.kinds import check
from agentflow_planner.conditions.parser import parse
from agentflow_planner.conditions.reads import Read, reads_of
from agentflow_planner.conditions.syntax import Node as Expression
from agentflow_planner.definition import RUN_CONTEXT, VARIABLES, Declared, Definition
from agentflow_planner.errors import ExpressionError
from agentflow_planner.findings import Finding, did_you_mean, render_findings
from agentflow_planner.inputs import schema_problem
from agentflow_planner.parsing import Parsed, read_definition, report_problem
from agentflow_planner.reading import Report, at, described, place_of
from agentflow_planner.templates import Part, split_text
from agentflow_planner.validation import undeclared
from agentflow_planner.yaml_tree import Mapping, Node, Scalar, Sequence, place_in

__all__ = ["check_definition", "render_findings"]

_CODES = {
    "condition.type": "cel_type",
    "condition.unknown_function": "cel_unknown_function",
    "condition.too_large": "cel_too_large",
}

_OPERATORS = ("an operator: || && == != < <= > >= in + - * / % ? . [",)
_OPERANDS = ("a name", "a number", "text in quotes", "true", "false", "null", "( [ { ! or -")
_SYNTAX = {
    "should end here": ("the end", *_OPERATORS),
    "'}' should end": ("}", *_OPERATORS),
    "compare with ==": ("==",),
    "is written &&": ("&&",),
    "is written ||": ("||",),
    "write ['field']": ("['field']",),
    "a value is missing": _OPERANDS,
    "an argument is missing": _OPERANDS,
    "has no meaning here": (*_OPERATORS, *_OPERANDS),
    "is no number": ("a number, such as 1, 1u, 0x1F or 1.5",),
    "too large for": ("int: -2^63 to 2^63-1", "uint: up to 2^64-1", "double: up to 1.8e308"),
    "no closing": ("the same quote at the end of the text",),
    "NUL characters": ("text without NUL",),
    "is no character": ("a Unicode character, no surrogate",),
    "no place in bytes": (r"\xHH", r"\OOO"),
    "a name is missing": ("a name",),
    "is reserved": ("a name that CEL does not keep for itself", "a field, such as output.package"),
    "has() takes": ("has(output.answer)",),
    "is the name of a variable": ("a name, such as x in output.items.all(x, x > 0)",),
}
"""What CEL takes where the reason of a syntax error contains the key."""

_MISSING = re.compile(r"'(.{1,2})' is missing")
_ARGUMENTS = re.compile(r"takes (.+ arguments)")
_PIECE = re.compile(r"\w+|\S")


def _found_at(source: str, offset: int) -> str:
    """The word or character of an expression at an offset."""
    piece = _PIECE.search(source, offset)
    return piece[0] if piece else "the end"


def _allowed_by(error: ExpressionError) -> tuple[str, ...]:
    """What CEL takes where the expression is wrong."""
    if missing := _MISSING.match(error.reason):
        return (missing[1], *_OPERATORS)
    if arguments := _ARGUMENTS.search(error.reason):
        return (arguments[1],)
    return next((allowed for part, allowed in _SYNTAX.items() if part in error.reason), ("a CEL expression",))


def check_definition(
    source: bytes, path: str, declared: Declared | None, engine: Conditions | None
) -> tuple[Definition | None, tuple[Finding, ...]]:
    """The definition in `source`, or None and everything that is wrong with it, in the order of the file.

    `path` is how findings name the file. `declared` are the agents and tools there are; None skips that check.
    `engine` compiles every expression; None leaves it at what can be said without one. Nothing is raised.
    """
    parsed = read_definition(source, path)
    if isinstance(parsed.root, Mapping):
        _Expressions(parsed, engine).check(parsed.root)
        _input_schema(parsed)
        for problem in undeclared(parsed.definition, declared) if declared is not None else ():
            report_problem(parsed.report, parsed.root, problem)
    findings = parsed.report.sorted()
    return (None if findings else parsed.definition), findings


def _input_schema(parsed: Parsed) -> None:
    schema = parsed.definition.input_schema
    problem = schema_problem(schema) if schema is not None else ""
    if problem:
        parsed.report.add(place_of(parsed.root, ("input_schema",)), "input_schema", problem)


@dataclass(frozen=True, slots=True)
class _Site:
    """An expression, and where it stands."""

    scalar: Scalar
    offset: int
    """Of the expression in the scalar's text."""
    source: str


class _Expressions:
    """Checks every expression of a file, whatever else may be wrong with it."""

    def __init__(self, parsed: Parsed, engine: Conditions | None) -> None:
        self.report: Report = parsed.report
        self.engine = engine
        definition = parsed.definition
        self.states = tuple(name for name in definition.states if not definition.is_final(name))
        self.constants = tuple(sorted({*definition.context, *RUN_CONTEXT}))
        self.lines = list(parsed.report.lines)

    def check(self, root: Mapping) -> None:
        """Check the output, and every state's input and conditions."""
        self.template(root.get("output"))
        states = root.get("states")
        for _, state in states.entries if isinstance(states, Mapping) else ():
            if isinstance(state, Mapping):
                self.input(state.get("input"))
                self.conditions(state)

    def conditions(self, state: Mapping) -> None:
        """The conditions of a state's transitions."""
        transitions = state.get("transitions")
        for item in transitions.items if isinstance(transitions, Sequence) else ():
            node = at(item, ("condition",))
            if isinstance(node, Scalar) and isinstance(node.value, str) and node.text:
                self.condition(_Site(node, 0, node.text))

    def condition(self, site: _Site) -> None:
        """An expression that has to yield a bool."""
        if "${" in site.source:
            message = "a condition is CEL as it is, without ${…}"
            alone = ("the expression alone, such as output.score > 0.5",)
            self.refuse(site, site.source.index("${"), "cel_syntax", message, found="${", allowed=alone)
            return
        kind = self.expression(site)
        if kind not in {"bool", "dyn"}:
            message = f"a condition yields true or false, this one always {kind}"
            self.refuse(site, 0, "not_a_condition", message, found=kind, allowed=("bool",))

    def input(self, node: Node | None) -> None:
        """A state's input: a mapping, or exactly one expression."""
        if isinstance(node, Scalar) and isinstance(node.value, str):
            pieces = self.pieces(node)
            if pieces is not None and not (len(pieces) == 1 and isinstance(pieces[0], Part)):
                allowed = ("key: value", '"${…}"')
                self.report.add(node.mark, "wrong_type", "input is a mapping", found=described(node), allowed=allowed)
        self.template(node)

    def template(self, node: Node | None) -> None:
        """Every expression in the texts of a value."""
        match node:
            case Mapping():
                for _, value in node.entries:
                    self.template(value)
            case Sequence():
                for item in node.items:
                    self.template(item)
            case Scalar() if isinstance(node.value, str) and "${" in node.text:
                for piece in self.pieces(node) or ():
                    if isinstance(piece, Part):
                        self.expression(_Site(node, piece.offset, piece.source))

    def pieces(self, node: Scalar) -> list[str | Part] | None:
        """The pieces of a text; None, reported, when an expression in it does not end."""
        try:
            return list(split_text(node.text))
        except ExpressionError as error:
            self.error(_Site(node, 0, node.text), error)
            return None

    def expression(self, site: _Site) -> str:
        """Check an expression; returns the kind of its value, `dyn` when nothing is known."""
        try:
            node = parse(site.source)
        except ExpressionError as error:
            self.error(site, error)
            return "dyn"
        kind, problems = check(node)
        for offset, code, message, found, allowed in problems:
            suggestion = did_you_mean(found, allowed) if code == "condition.unknown_function" else ""
            self.refuse(site, offset, _CODES[code], message, found=found, allowed=allowed, suggestion=suggestion)
        self.names(site, node)
        if not problems and self.engine is not None:
            self.compiled(site, self.engine)
        return kind if not problems else "dyn"

    def compiled(self, site: _Site, engine: Conditions) -> None:
        """The engine takes it, too."""
        try:
            engine.compile(site.source)
        except ExpressionError as error:
            self.error(site, error)

    def names(self, site: _Site, node: Expression) -> None:
        """Everything the expression reads is there to be read."""
        for read in reads_of(node):
            if read.root not in VARIABLES:
                self.unknown(site, read, "cel_unknown_variable", "variable", read.root, VARIABLES)
            elif read.root == "outputs" and read.steps and read.steps[0] not in self.states:
                self.unknown(site, read, "unknown_output", "state with an output", str(read.steps[0]), self.states)
            elif read.root == "context" and read.steps and read.steps[0] not in self.constants:
                self.unknown(site, read, "unknown_context", "constant", str(read.steps[0]), self.constants)

    def unknown(self, site: _Site, read: Read, code: str, what: str, name: str, allowed: tuple[str, ...]) -> None:
        """Refuse a name, with the nearest one there is."""
        message = f"there is no {what} {name!r}"
        hint = did_you_mean(name, allowed)
        self.refuse(site, read.offset, code, message, found=read.path, allowed=allowed, suggestion=hint)

    def error(self, site: _Site, error: ExpressionError) -> None:
        """Report an expression that does not compile."""
        code = _CODES.get(error.error_code, "cel_syntax")
        found, allowed = error.found, error.allowed
        if code == "cel_syntax":
            found, allowed = found or _found_at(site.source, error.offset), allowed or _allowed_by(error)
        self.refuse(site, error.offset, code, error.reason, found=found, allowed=allowed)

    def refuse(
        self,
        site: _Site,
        offset: int,
        code: str,
        message: str,
        *,
        found: str = "",
        allowed: tuple[str, ...] = (),
        suggestion: str = "",
    ) -> None:
        """Report something at a place in an expression."""
        mark = place_in(site.scalar, self.lines, site.offset + offset)
        self.report.add(mark, code, message, found=found, allowed=allowed, suggestion=suggestion)
