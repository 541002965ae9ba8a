"""`__init__.py` only re-exports. That `__all__` is sorted is ruff's to see (RUF022)."""

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


def imported(tree: ast.Module) -> set[str]:
    """The names that a module's imports bind."""
    imports = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    return {alias.asname or alias.name for node in imports for alias in node.names}


def code(tree: ast.Module) -> list[ast.stmt]:
    """All statements but the docstring, imports and `__all__`."""
    rest = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return [node for node in rest if not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)]


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
