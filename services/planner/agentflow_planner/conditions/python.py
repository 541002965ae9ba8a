"""The pure Python engine (cel-python) as a backend.

cel-python parses what the front end emits and walks the tree; where its walk or its functions differ from the language
definition they are replaced, here and in `celpy_functions` and its neighbours. What was found by trying, and is dealt with: every tree
has nine levels of pass-through nodes for a name (folded once, which halves the time); a macro copies all variables for
every element (one scope is reused); an error inside of a macro ends the evaluation even where `||` has decided, one
inside of a map stays in it; nothing bounds the time (`MAX_STEPS`, `MAX_ITEMS`); its errors show all variables; making
its `Environment` changes the recursion limit of the process (not used); its parser is one for the whole process and
makes trees for whoever came first, so that its compiled runner crashes after an interpreted one (we keep our own).
"""

import functools
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, cast

import lark
from celpy import celtypes
from celpy.celparser import CELParser
from celpy.evaluation import Activation, CELEvalError, Evaluator

from agentflow_planner.conditions.backend import Runner
from agentflow_planner.conditions.celpy_functions import FUNCTIONS
from agentflow_planner.conditions.celpy_values import (
    ABSENT,
    Function,
    TypeName,
    boolean,
    cel_value,
    failure,
    kind,
    lookup,
    no_overload,
)
from agentflow_planner.conditions.emit import Dialect
from agentflow_planner.conditions.kinds import TYPE_NAMES
from agentflow_planner.conditions.results import Plain
from agentflow_planner.errors import EvaluationFailed

DISTRIBUTION = "cel-python"

MAX_ITEMS = 9_999
"""Elements one evaluation may go through in macros, as many as the C++ engine allows."""

MAX_STEPS = 40_000
"""Nodes one evaluation may visit, about 0.1 s."""

_PASS_THROUGH = frozenset(
    {
        "expr",
        "conditionalor",
        "conditionaland",
        "relation",
        "addition",
        "multiplication",
        "unary",
        "member",
        "paren_expr",
    }
)


_OPERATORS = {
    "relation_lt": "_<_",
    "relation_le": "_<=_",
    "relation_ge": "_>=_",
    "relation_gt": "_>_",
    "relation_eq": "_==_",
    "relation_ne": "_!=_",
    "relation_in": "_in_",
    "addition_add": "_+_",
    "addition_sub": "_-_",
    "multiplication_mul": "_*_",
    "multiplication_div": "_/_",
    "multiplication_mod": "_%_",
    "unary_not": "!_",
    "unary_neg": "-_",
}


class PythonBackend:
    """Runs expressions in Python: some hundred microseconds each."""

    name = DISTRIBUTION
    dialect = Dialect(balance=True)

    def __init__(self) -> None:
        self.version = version(DISTRIBUTION)
        self._parser = _own_parser()

    def compile(self, text: str, roots: tuple[str, ...]) -> Runner:
        """Compile emitted text; raises `EvaluationFailed`."""
        try:
            tree = _folded(self._parser.parse(text))
        except (lark.exceptions.LarkError, RecursionError) as error:
            raise EvaluationFailed(f"cel-python cannot read it: {error}"[:200], code="condition.syntax") from error
        return functools.partial(_run, tree)


@functools.cache
def _own_parser() -> lark.Lark:
    """cel-python's parser, without leaving ours behind for the rest of the process, nor taking what is there."""
    theirs = CELParser.CEL_PARSER
    CELParser.CEL_PARSER = None
    try:
        CELParser()
        made: Any = CELParser.CEL_PARSER
    finally:
        CELParser.CEL_PARSER = theirs
    assert isinstance(made, lark.Lark)
    return made


def _folded(tree: lark.Tree[Any]) -> lark.Tree[Any]:
    """The tree without the levels that only hand a value up."""
    while (inner := _only_child(tree)) is not None:
        tree = inner
    tree.children = [_folded(child) if isinstance(child, lark.Tree) else child for child in tree.children]
    return tree


def _only_child(tree: lark.Tree[Any]) -> lark.Tree[Any] | None:
    child = tree.children[0] if len(tree.children) == 1 else None
    if not isinstance(child, lark.Tree):
        return None
    passes = tree.data in _PASS_THROUGH or (tree.data == "primary" and child.data == "paren_expr")
    return child if passes else None


class _Exhausted(Exception):
    """The evaluation has used up its steps; no error inside an expression, so nothing there can absorb it."""


class _Budget:
    """What is left of an evaluation's steps and elements."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.items = MAX_ITEMS

    def step(self) -> None:
        """Take one step."""
        self.steps -= 1
        if self.steps < 0:
            raise _Exhausted

    def item(self) -> None:
        """Go through one element."""
        self.items -= 1
        if self.items < 0:
            raise _Exhausted


class _Scope:
    """Variables by name, those of a macro before those around it; the part of an `Activation` the evaluator uses."""

    def __init__(self, values: dict[str, Any], outer: "_Scope | None" = None) -> None:
        self.values = values
        self.outer = outer

    def resolve_variable(self, name: str) -> Any:
        """The value of a variable or the type of that name; raises `KeyError`."""
        if name in self.values:
            return self.values[name]
        if self.outer is not None:
            return self.outer.resolve_variable(name)
        return TypeName(_type_name(name))

    def resolve_function(self, name: str) -> Function:
        """A function or operator; raises `KeyError`."""
        return FUNCTIONS[name]


def _type_name(name: str) -> str:
    if name not in TYPE_NAMES:
        raise KeyError(name)
    return name


class _Evaluator(Evaluator):
    """cel-python's evaluator, with the language's own meaning of macros, `has`, `&&` and `||`, and a budget."""

    def __init__(self, tree: lark.Tree[Any], scope: _Scope, budget: _Budget) -> None:
        super().__init__(tree, cast(Activation, scope))
        self.scope = scope
        self.budget = budget

    def visit(self, tree: lark.Tree[Any]) -> Any:
        """Evaluate one node."""
        self.budget.step()
        return getattr(self, tree.data)(tree)

    def visit_children(self, tree: lark.Tree[Any]) -> list[Any]:
        """Evaluate what is below a node."""
        return [self.visit(child) if isinstance(child, lark.Tree) else child for child in tree.children]

    def expr(self, tree: lark.Tree[Any]) -> Any:
        """`condition ? then : other`."""
        condition, then, other = cast("list[lark.Tree[Any]]", tree.children)
        decided = self.visit(condition)
        if isinstance(decided, CELEvalError):
            return decided
        return self.visit(then if decided else other) if kind(decided) == "bool" else no_overload("_?_:_")

    def conditionalor(self, tree: lark.Tree[Any]) -> Any:
        """`a || b`: true if one is, whatever the other."""
        return self._joined(tree, "_||_", decisive=True)

    def conditionaland(self, tree: lark.Tree[Any]) -> Any:
        """`a && b`: false if one is, whatever the other."""
        return self._joined(tree, "_&&_", decisive=False)

    def _joined(self, tree: lark.Tree[Any], operator: str, *, decisive: bool) -> Any:
        sides: list[Any] = []
        for child in cast("list[lark.Tree[Any]]", tree.children):
            value = self.visit(child)
            if kind(value) == "bool" and bool(value) == decisive:
                return value
            sides.append(value)
        return _undecided(sides, operator, decisive=decisive)

    def relation(self, tree: lark.Tree[Any]) -> Any:
        """A binary operator: the left operand is below a node with the operator's name."""
        left, right = cast("list[lark.Tree[Any]]", tree.children)
        operate = FUNCTIONS[_OPERATORS[left.data]]
        return operate(self.visit(cast("lark.Tree[Any]", left.children[0])), self.visit(right))

    addition = multiplication = relation

    def unary(self, tree: lark.Tree[Any]) -> Any:
        """`!x` or `-x`."""
        sign, operand = cast("list[lark.Tree[Any]]", tree.children)
        return FUNCTIONS[_OPERATORS[sign.data]](self.visit(operand))

    def primary(self, tree: lark.Tree[Any]) -> Any:
        """A name; anything else in the way of cel-python."""
        child = cast("lark.Tree[Any]", tree.children[0])
        return self.scope.resolve_variable(str(child.children[0])) if child.data == "ident" else super().primary(tree)

    def macro_has_eval(self, exprlist: lark.Tree[Any]) -> Any:
        """`has(x.field)`: an error unless `x` is a map."""
        operand, field = cast("lark.Tree[Any]", exprlist.children[0]).children
        value = self.visit(cast("lark.Tree[Any]", operand))
        if isinstance(value, CELEvalError):
            return value
        return (
            boolean(str(field) in value)
            if kind(value) == "map"
            else failure("no such overload: a field of what is no map")
        )

    def member_dot(self, tree: lark.Tree[Any]) -> Any:
        """`x.field`."""
        operand, field = tree.children
        value = self.visit(cast("lark.Tree[Any]", operand))
        if isinstance(value, CELEvalError):
            return value
        if kind(value) != "map":
            return failure("no such overload: a field of what is no map")
        found = dict.get(value, str(field), failure)
        return failure(f"no such key: {str(field)!r}") if found is failure else found

    def member_dot_arg(self, tree: lark.Tree[Any]) -> Any:
        """`x.macro(v, …)` or `x.method(…)`."""
        name = str(tree.children[1])
        if name not in {"all", "exists", "exists_one", "filter", "map"}:
            return super().member_dot_arg(tree)
        target = self.visit(cast("lark.Tree[Any]", tree.children[0]))
        if isinstance(target, CELEvalError):
            return target
        if kind(target) not in {"list", "map"}:
            return failure("macros go through lists and maps only")
        if kind(target) == "map" and name in {"filter", "map"}:
            return failure("map() and filter() go through lists only")
        results = self._each(cast("lark.Tree[Any]", tree.children[2]), target)
        return _collected(name, results)

    def mapinits(self, tree: lark.Tree[Any]) -> Any:
        """`{key: value, …}`: an error in any of them is the value's."""
        values = self.visit_children(tree)
        made = celtypes.MapType()
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, CELEvalError) or isinstance(value, CELEvalError):
                return key if isinstance(key, CELEvalError) else value
            if kind(key) not in {"bool", "int", "string", "uint"}:
                return no_overload("a key of a map")
            if lookup(made, key) is not ABSENT:
                return failure("duplicate key in map")
            dict.__setitem__(made, key, value)
        return made

    def _each(self, args: lark.Tree[Any], items: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
        """Every element with what the macro's expression makes of it, computed as it is asked for."""
        variable, body = cast("list[lark.Tree[Any]]", args.children)
        name = str(next(variable.scan_values(lambda token: isinstance(token, lark.Token))))
        scope = _Scope({}, self.scope)
        inner = _Evaluator(body, scope, self.budget)
        for item in items:
            self.budget.item()
            scope.values[name] = item
            yield item, inner.visit(body)


def _undecided(sides: list[Any], operator: str, *, decisive: bool) -> Any:
    """What `&&` or `||` yields when no side decides it: the first error, or that all sides are the other bool."""
    for side in sides:
        if isinstance(side, CELEvalError):
            return side
    return no_overload(operator) if any(kind(side) != "bool" for side in sides) else boolean(not decisive)


def _collected(name: str, results: Iterable[tuple[Any, Any]]) -> Any:
    """The value of a macro."""
    if name in {"all", "exists"}:
        return _quantified(results, decisive=name == "exists")
    kept: list[Any] = []
    for item, result in results:
        if isinstance(result, CELEvalError):
            return result
        if name != "map" and kind(result) != "bool":
            return no_overload("_?_:_")
        if name == "map" or result:
            kept.append(result if name == "map" else item)
    return boolean(len(kept) == 1) if name == "exists_one" else celtypes.ListType(kept)


def _quantified(results: Iterable[tuple[Any, Any]], *, decisive: bool) -> Any:
    undecided: list[Any] = []
    for _, result in results:
        if kind(result) == "bool" and bool(result) == decisive:
            return result
        if kind(result) != "bool" and not undecided:
            undecided = [result]
    return _undecided(undecided, "_||_" if decisive else "_&&_", decisive=decisive)


def _run(tree: lark.Tree[Any], view: Mapping[str, Any]) -> Any:
    try:
        values = {name: cel_value(value) for name, value in view.items()}
        result = _Evaluator(tree, _Scope(values), _Budget()).visit(tree)
        if isinstance(result, CELEvalError):
            raise EvaluationFailed(_reason(result))
        return Plain(_unwrapped).convert(result)
    except _Exhausted:
        raise EvaluationFailed("too many steps") from None
    except EvaluationFailed:
        raise
    except Exception as error:  # whatever else the engine raises, it is no result
        raise EvaluationFailed(f"the engine failed: {type(error).__name__}") from error


def _reason(error: CELEvalError) -> str:
    """The first line of an error; cel-python's own may go on with all variables."""
    text = str(error.args[0]) if error.args else "the evaluation failed"
    return text.split(" (in activation", 1)[0].splitlines()[0][:200]


def _unwrapped(value: Any) -> Any:
    match kind(value):
        case "bool":
            return bool(value)
        case "int" | "uint":
            return int(value)
        case "double":
            return float(value)
        case "string":
            return str(value)
        case "map":
            return {str(key) if kind(key) == "string" else key: item for key, item in dict.items(value)}
        case "type":
            return type
        case _:
            return value
