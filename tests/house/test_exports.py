"""`__init__.py` only re-exports. That `__all__` is sorted is ruff's to see (RUF022).

What is heavy may be re-exported when it is first asked for (PEP 562): a `__getattr__`, and for the type checker the
imports under `if TYPE_CHECKING:`. That both name the same is `tests/core/test_package.py`'s to see.
"""

import ast

import pytest

from tests.house.workspace import Distribution, Module, distributions, modules, sources


def exported(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`, or None where a module has none."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def is_lazy(node: ast.stmt) -> bool:
    """Whether it is half of a lazy re-export: `__getattr__`, or imports that only the type checker sees."""
    if isinstance(node, ast.If):
        only_imports = all(isinstance(each, ast.ImportFrom) for each in node.body) and not node.orelse
        return only_imports and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef) and node.name == "__getattr__"


def imported(tree: ast.Module) -> set[str]:
    """The names that a module's imports bind, but those that lazy re-exports are made with."""
    lazy = [node for node in tree.body if isinstance(node, ast.If) and is_lazy(node)]
    nodes = [*tree.body, *(each for node in lazy for each in node.body)]
    imports = (node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    found = {alias.asname or alias.name for node in imports for alias in node.names}
    return found - {"TYPE_CHECKING", "importlib"} if lazy else found


def code(tree: ast.Module) -> list[ast.stmt]:
    """All statements but the docstring, imports, lazy ones too, and `__all__`."""
    rest = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    plain = ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign
    return [node for node in rest if not isinstance(node, plain) and not is_lazy(node)]


@pytest.mark.parametrize("module", [module for module in sources() if module.is_init], ids=str)
def test_an_init_only_re_exports(module: Module) -> None:
    """It imports what it exports, exports what it imports, and does nothing else."""
    assert [] == code(module.tree)
    assert imported(module.tree) == set(exported(module.tree) or [])


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_a_package_says_what_it_exports(distribution: Distribution) -> None:
    """Each distribution's package has an `__all__`, even where it is empty."""
    tree = ast.parse((distribution.code / "__init__.py").read_text())

    assert exported(tree) is not None


def test_test_packages_are_empty() -> None:
    """They are there for mypy; what tests share has a module with a name."""
    inits = [module for module in modules() if module.is_init and module not in sources()]

    assert inits
    assert [] == [str(module) for module in inits if module.text.strip()]
