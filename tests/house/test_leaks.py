"""The repository names no registry's host and no path of anybody's machine."""

import re

import pytest

from tests.house.workspace import ROOT, files

# Each is written in two parts, so that this file does not name it either.
_HOSTS = ["files." + "pythonhosted", "pypi." + "org/simple", "registry." + "npmjs", "deb." + "debian.org"]
_WORKPLACES = r"(?<![\w.~/-])/(?:Users|home|work)/[\w.]"

_LEAK = re.compile("|".join([*map(re.escape, _HOSTS), _WORKPLACES, re.escape(f"{ROOT}/")]))


def test_no_file_names_a_registry_host_or_a_machine_path() -> None:
    """Whoever clones the repository reaches packages in their own way, and lives elsewhere."""
    leaks = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if _LEAK.search(line)
    ]

    assert [] == leaks


@pytest.mark.parametrize("leak", [*_HOSTS, "/ho" + "me/ada/src", "/Us" + "ers/ada", f"{ROOT}/agentflow"])
def test_a_leak_is_found(leak: str) -> None:
    """Each is recognised in the middle of a line."""
    assert _LEAK.search(f'see "{leak}" for more')


@pytest.mark.parametrize("text", ["https://pypi.org/project/x", "docs/home/index.md", "~/work/x", "team/work/flow"])
def test_other_addresses_and_paths_are_none(text: str) -> None:
    """Pages for people and paths inside the repository or below somebody's home may be named."""
    assert not _LEAK.search(text)
