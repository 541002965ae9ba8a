"""A definition file to a typed `Definition`, or to everything that is wrong with it. Pure.

The file:

    name: support                  an id; the file is known as name@version
    version: 1.0.0                 SemVer without a build part
    planner: fsm
    description: …
    max_steps: 100                 1 to 10000
    timeout: 1h                    the whole run
    context: {threshold: 0.55}     constants
    input_schema: {…}              JSON Schema of a goal's input
    initial_state: classify
    final_states: [answered]
    output: "${…}"                 default: the last step's output
    states:
      classify:
        agent: classifier          exactly one of agent, tool, signal
        input: {text: "${input.text}"}
        timeout: 60s
        retry: {max_attempts: 1, backoff: 1s}
        transitions: [{to: search, condition: "output.confidence >= context.threshold"}]
        on_success: escalated      when no transition holds
        on_error: fallback
"""

import re
from dataclasses import dataclass
from typing import Any

from agentflow_planner.conditions.lexer import KEYWORDS, RESERVED
from agentflow_planner.definition import (
    DEFAULT_MAX_STEPS,
    DEFAULT_RUN_TIMEOUT,
    DEFAULT_STATE_TIMEOUT,
    RUN_CONTEXT,
    Definition,
    RetryDef,
    StateDef,
    TransitionDef,
)
from agentflow_planner.findings import did_you_mean, refusal
from agentflow_planner.reading import (
    Fields,
    Report,
    described,
    is_null,
    json_of,
    mapping_of,
    place_of,
    text_of,
)
from agentflow_planner.validation import Problem, validate
from agentflow_planner.yaml_tree import Mapping, Mark, Node, Scalar, Sequence, Unreadable, lines_of, read_document

PLANNERS = ("fsm",)
"""Planners a definition can be for."""

MAX_STEPS_LIMIT = 10_000
MAX_ATTEMPTS = 100

DEFINITION_KEYS = (
    "name",
    "version",
    "planner",
    "description",
    "max_steps",
    "timeout",
    "context",
    "input_schema",
    "initial_state",
    "final_states",
    "output",
    "states",
)
STATE_KEYS = ("agent", "tool", "signal", "input", "timeout", "retry", "transitions", "on_success", "on_error")

# github.com/semver/semver, without the build part.
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_PRE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file as far as it could be read."""

    definition: Definition
    """Sound only if there is no finding."""
    root: Node | None
    report: Report


def parse_definition(source: bytes, path: str) -> Definition:
    """Parse and validate a definition; `path` is how findings name the file.

    Raises `DefinitionError` with all findings in `fields["findings"]`. Expressions are not compiled and agents not
    looked up here: see `check.check_definition`.
    """
    parsed = read_definition(source, path)
    findings = parsed.report.sorted()
    if findings:
        raise refusal(path, findings)
    return parsed.definition


def read_definition(source: bytes, path: str) -> Parsed:
    """Read as much of a definition as there is, with everything that is wrong with it."""
    report = Report(path, lines_of(source))
    empty = Definition(name="", version="", initial_state="", final_states=(), states={})
    try:
        document = read_document(source)
    except Unreadable as error:
        report.trouble(error.trouble)
        return Parsed(empty, None, report)
    for trouble in document.troubles:
        report.trouble(trouble)
    root = document.root
    if not isinstance(root, Mapping):
        found = "nothing" if root is None or is_null(root) else described(root)
        mark = root.mark if root is not None else Mark(1, 1)
        report.add(mark, "wrong_type", "a definition is a mapping", found=found, allowed=DEFINITION_KEYS)
        return Parsed(empty, root, report)
    reader = _Reader(report)
    definition = reader.definition(root)
    for problem in validate(definition, None, frozenset(reader.opaque)):
        report_problem(report, root, problem)
    return Parsed(definition, root, report)


def report_problem(report: Report, root: Node | None, problem: Problem) -> None:
    """Report a problem at the place of its path."""
    report.add(
        place_of(root, problem.path, key=problem.on_key),
        problem.code,
        problem.message,
        found=problem.found,
        allowed=problem.allowed,
        suggestion=problem.suggestion,
    )


class _Reader:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.opaque: set[str] = set()
        """States whose ways out could not be read in full."""

    def definition(self, root: Mapping) -> Definition:
        """The definition in the root of a file."""
        fields = Fields(self.report, root, "a definition", DEFINITION_KEYS)
        timeout = fields.duration("timeout", DEFAULT_RUN_TIMEOUT)
        return Definition(
            name=fields.token("name", required=True),
            version=self.version(fields),
            planner=self.planner(fields),
            description=fields.text("description", empty=True) if "description" in fields else "",
            max_steps=fields.number("max_steps", DEFAULT_MAX_STEPS, 1, MAX_STEPS_LIMIT),
            timeout=timeout,
            context=self.context(fields),
            input_schema=self.input_schema(fields),
            initial_state=self.state_name(fields, "initial_state"),
            final_states=self.final_states(fields),
            output=self.value(fields, "output"),
            states=self.states(fields, timeout),
        )

    def version(self, fields: Fields) -> str:
        """SemVer without a build part."""
        node = fields.node_of("version")
        if isinstance(node, Scalar) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            hint = f'write version: "{node.text}{".0" * (2 - node.text.count("."))}"'
            message = "version is SemVer, and this is read as a number"
            self.refuse(fields, "version", "ambiguous", message, ("1.0.0", "1.2.3-rc.1"), hint)
            return ""
        version = fields.text("version", required=True)
        if version and (len(version) > 64 or not _SEMVER.match(version)):
            message = "version is no SemVer" + (", which has no build part here" if "+" in version else "")
            self.refuse(fields, "version", "invalid_value", message, ("1.0.0", "1.2.3-rc.1"))
            return ""
        return version

    def planner(self, fields: Fields) -> str:
        """A planner there is."""
        planner = fields.text("planner") if "planner" in fields else "fsm"
        if planner and planner not in PLANNERS:
            message = f"there is no planner {planner!r}"
            self.refuse(fields, "planner", "unknown_planner", message, PLANNERS, did_you_mean(planner, PLANNERS))
        return planner if planner in PLANNERS else "fsm"

    def refuse(
        self, fields: Fields, key: str, code: str, message: str, allowed: tuple[str, ...], suggestion: str = ""
    ) -> None:
        """Report the value of a field."""
        node = fields.node_of(key)
        assert node is not None
        self.report.add(node.mark, code, message, found=described(node), allowed=allowed, suggestion=suggestion)

    def context(self, fields: Fields) -> dict[str, Any]:
        """Constants, by names that expressions can use."""
        node = fields.mapping("context")
        if node is None:
            return {}
        for key, _ in node.entries:
            if key.text in RUN_CONTEXT:
                message = f"context.{key.text} is what a run says about itself"
                self.report.add(key.mark, "reserved_name", message, found=key.text)
            else:
                self.identifier(key, "the name of a constant")
        value = json_of(self.report, node, "context")
        assert isinstance(value, dict)
        return value

    def input_schema(self, fields: Fields) -> dict[str, Any] | None:
        """A JSON Schema; whether it is one is for `inputs` to say."""
        node = fields.mapping("input_schema")
        value = None if node is None else json_of(self.report, node, "input_schema")
        return value if isinstance(value, dict) else None

    def value(self, fields: Fields, key: str) -> Any:
        """A literal or template."""
        node = fields.node_of(key)
        return None if node is None else json_of(self.report, node, key)

    def identifier(self, name: Scalar, what: str) -> None:
        """Report a name that cannot follow a dot in an expression; it stays the name of what it names."""
        if _IDENTIFIER.match(name.text) and name.text not in RESERVED | KEYWORDS:
            return
        reserved = name.text in RESERVED | KEYWORDS
        message = f"{what} is used in expressions" + (", where this word is reserved" if reserved else "")
        allowed = ("letters, digits and _, not starting with a digit, up to 64",)
        self.report.add(name.mark, "invalid_name", message, found=name.text, allowed=allowed)

    def state_name(self, fields: Fields, key: str) -> str:
        """The name of a state in a field."""
        node = fields.node_of(key, required=key == "initial_state")
        return "" if node is None else text_of(self.report, node, key)

    def final_states(self, fields: Fields) -> tuple[str, ...]:
        """At least one name."""

        def read(item: Node, _: int) -> str | None:
            name = text_of(self.report, item, "a final state")
            if name and isinstance(item, Scalar):
                self.identifier(item, "a state")
            return name or None

        node = fields.node_of("final_states", required=True)
        names = fields.items("final_states", read)
        if node is not None and (is_null(node) or (isinstance(node, Sequence) and not node.items)):
            message = "final_states names at least one state: a run has to end somewhere"
            self.report.add(node.mark, "missing_key", message, found=described(node), allowed=("[done]",))
        return names

    def states(self, fields: Fields, run_timeout: float) -> dict[str, StateDef]:
        """Every state of the file."""
        node = fields.node_of("states", required=True)
        found = None if node is None else mapping_of(self.report, node, "states")
        if found is None or not found.entries:
            if node is not None and (found is not None or is_null(node)):
                self.report.add(node.mark, "missing_key", "states holds at least one state", found=described(node))
            return {}
        read: dict[str, StateDef] = {}
        for key, value in found.entries:
            self.identifier(key, "a state")
            if key.text not in read:
                read[key.text] = self.state(key.text, value, run_timeout)
        return read

    def state(self, name: str, node: Node, run_timeout: float) -> StateDef:
        """One state; an empty one, as final states are, for null."""
        found = mapping_of(self.report, node, f"the state {name!r}")
        if found is None:
            if not is_null(node):
                self.opaque.add(name)
            return StateDef(name)
        before = len(self.report.findings)
        fields = Fields(self.report, found, f"the state {name!r}", STATE_KEYS)
        state = StateDef(
            name=name,
            agent=fields.token("agent"),
            tool=fields.token("tool"),
            signal=fields.token("signal"),
            input=self.input(fields),
            timeout=fields.duration("timeout", min(DEFAULT_STATE_TIMEOUT, run_timeout)),
            retry=self.retry(fields),
            transitions=fields.items("transitions", self.transition),
            on_success=self.state_name(fields, "on_success"),
            on_error=self.state_name(fields, "on_error"),
        )
        if len(self.report.findings) > before:
            self.opaque.add(name)
        return state

    def input(self, fields: Fields) -> Any:
        """A mapping, or one template that yields one."""
        node = fields.node_of("input")
        if node is None or is_null(node):
            return None
        template = isinstance(node, Scalar) and isinstance(node.value, str) and node.text.startswith("${")
        if not isinstance(node, Mapping) and not template:
            allowed = ("key: value", '"${…}"')
            self.report.add(node.mark, "wrong_type", "input is a mapping", found=described(node), allowed=allowed)
            return None
        return json_of(self.report, node, "input")

    def retry(self, fields: Fields) -> RetryDef:
        """How often a step is tried."""
        node = fields.mapping("retry")
        if node is None:
            return RetryDef()
        retry = Fields(self.report, node, "retry", ("max_attempts", "backoff"))
        return RetryDef(retry.number("max_attempts", 1, 1, MAX_ATTEMPTS), retry.duration("backoff", 1.0, zero=True))

    def transition(self, node: Node, index: int) -> TransitionDef:
        """One way out; leading nowhere when it is wrong, so that those behind it keep their places."""
        found = mapping_of(self.report, node, f"transition {index + 1}")
        if found is None:
            if is_null(node):
                self.report.add(node.mark, "wrong_type", "a transition is a mapping", found="null", allowed=("to: …",))
            return TransitionDef("")
        fields = Fields(self.report, found, "a transition", ("to", "condition"))
        condition = fields.text("condition") if "condition" in fields else None
        return TransitionDef(fields.text("to", required=True), condition)
