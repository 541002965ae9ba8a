"""What is public is documented and typed, and every exception to a rule says why."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.house.workspace import Definition, Module, modules, sources

Documented = ast.Module | ast.ClassDef | Definition

_TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore")
_TYPE_IGNORE_WITH_REASON = re.compile(r"# type: ignore\[[a-z-]+(, ?[a-z-]+)*\]  # \S.{7,}")
_NOQA = re.compile(r"#\s*(ruff:\s*|flake8[:=]\s*)?noqa", re.IGNORECASE)
_NOQA_WITH_REASON = re.compile(r"# noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*( -|  #) \S.{7,}")


def is_overload(node: Definition) -> bool:
    """Whether it only gives one of several signatures."""
    return any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list)


def is_setter(node: Definition) -> bool:
    """Whether it is the other half of a property, which is documented at its first."""
    return any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in node.decorator_list)


def public(node: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    """A module or class and all in it that its users can name."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child)
        elif isinstance(child, Definition) and not child.name.startswith("_"):
            yield child


def public_parts() -> list[tuple[Module, Documented]]:
    """Everything public in the source."""
    named = [module for module in sources() if not module.path.stem.startswith("_") or module.is_init]
    return [(module, node) for module in named for node in public(module.tree)]


def comments(module: Module) -> list[tuple[int, str]]:
    """Every comment of a module, with its line."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def without_reason(marker: re.Pattern[str], complete: re.Pattern[str]) -> list[str]:
    """Comments that hold `marker` but not in the `complete` form."""
    return [
        f"{module}:{line}: {text}"
        for module in modules()
        for line, text in comments(module)
        if marker.search(text) and not complete.search(text)
    ]


def test_public_things_are_documented() -> None:
    """Nine in ten public modules, classes, functions and methods have a docstring."""
    parts = [
        (module, node)
        for module, node in public_parts()
        if not (isinstance(node, Definition) and (is_overload(node) or is_setter(node)))
    ]
    bare = [f"{module}:{getattr(node, 'lineno', 1)}" for module, node in parts if ast.get_docstring(node) is None]

    assert len(bare) <= 0.1 * len(parts), bare


def test_public_functions_say_what_they_return() -> None:
    """All of them, without exception."""
    silent = [
        f"{module}:{node.lineno} {node.name}"
        for module, node in public_parts()
        if isinstance(node, Definition) and node.returns is None
    ]

    assert [] == silent


def test_type_checks_are_rarely_switched_off() -> None:
    """At most 1.5 `type: ignore` for 1,000 lines of source and tests."""
    ignored = sum(bool(_TYPE_IGNORE.search(text)) for module in modules() for _, text in comments(module))
    lines = sum(module.lines for module in modules())

    assert ignored <= 1.5 * lines / 1000


def test_each_type_ignore_has_a_code_and_a_reason() -> None:
    """The form is `# type: ignore[code]  # reason`."""
    assert [] == without_reason(_TYPE_IGNORE, _TYPE_IGNORE_WITH_REASON)


def test_each_lint_exception_has_a_code_and_a_reason() -> None:
    """The form is `# noqa: CODE - reason` or `# noqa: CODE  # reason`; none for a whole file."""
    assert [] == without_reason(_NOQA, _NOQA_WITH_REASON)


def test_private_things_need_no_docstring() -> None:
    """What starts with an underscore is left out, and so is all in it."""
    tree = ast.parse("class _A:\n  def f(self): ...\nclass B:\n  def g(self): ...\n  def _h(self): ...\ndef _i(): ...")

    assert ["B", "g"] == [node.name for node in public(tree) if not isinstance(node, ast.Module)]
