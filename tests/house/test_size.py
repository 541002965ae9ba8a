"""Small modules, short functions, and more tests than source."""

import ast
import statistics

from tests.house.workspace import Definition, docstring_lines, modules, modules_of_tests, sources


def percentile(values: list[int], percent: int) -> float:
    """The value that `percent` of `values` do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def length(function: Definition) -> int:
    """Lines from the signature to the last statement; what a docstring takes does not count."""
    return (function.end_lineno or 0) - function.lineno + 1 - docstring_lines(function)


def test_no_module_is_longer_than_600_lines() -> None:
    """Neither source nor tests hold a file that has to be searched instead of read."""
    too_long = [f"{module}: {module.lines} lines" for module in modules() if module.lines > 600]

    assert [] == too_long


def test_source_modules_are_small() -> None:
    """Half of them have at most 200 lines and nine in ten at most 400; `__init__.py` would flatter and is left out."""
    lengths = [module.lines for module in sources() if not module.is_init]

    assert statistics.median(lengths) <= 200
    assert percentile(lengths, 90) <= 400


def test_functions_are_short() -> None:
    """Half of the source's functions have at most 9 lines, all but one in twenty at most 40."""
    by_length = sorted(
        ((length(function), f"{module}:{function.lineno}") for module in sources() for function in module.functions()),
        reverse=True,
    )
    lengths = [lines for lines, _ in by_length]

    assert statistics.median(lengths) <= 9
    assert percentile(lengths, 95) <= 40, by_length[:20]


def test_there_is_more_test_than_source() -> None:
    """At least 1.3 lines of test for each line of source."""
    source_lines = sum(module.lines for module in sources())
    test_lines = sum(module.lines for module in modules_of_tests())
    ratio = test_lines / source_lines

    assert ratio >= 1.3, f"{test_lines} lines of test for {source_lines} of source: {ratio:.2f}"


def test_the_length_of_a_function_is_that_of_its_code() -> None:
    """A docstring does not make a function long; a comment does, because it has to be read with the code."""
    plain = ast.parse("def f() -> int:\n    # why\n    return 1").body[0]
    documented = ast.parse('def f() -> int:\n    """One.\n\n    Always.\n    """\n    # why\n    return 1').body[0]

    assert isinstance(plain, ast.FunctionDef)
    assert isinstance(documented, ast.FunctionDef)
    assert 3 == length(plain) == length(documented)
