"""The page about settings lists what there is: it is compared with the models."""

import tomllib
from pathlib import Path

import pytest

from agentflow.cli.doctor import doctor
from agentflow.configuration.catalogue import as_markdown, settings
from agentflow.configuration.layers import TomlFile
from agentflow.configuration.platform import OTHER_VARIABLES, SHARED_VARIABLES
from agentflow.configuration.resolving import unknown_keys

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "configuration.md").read_text("utf-8")


def test_the_page_has_every_setting_as_it_is() -> None:
    """Name, type, default and meaning: `as_markdown()` makes the part that begins with this heading."""
    assert as_markdown().strip() == PAGE.partition("## Every setting\n")[2].strip()


def test_every_setting_says_what_it_means() -> None:
    """A row without a meaning helps nobody."""
    assert [] == [each.name for each in settings() if not each.description]


@pytest.mark.parametrize("name", [*SHARED_VARIABLES, *OTHER_VARIABLES])
def test_the_page_has_every_variable(name: str) -> None:
    """Those of others, and those that are no setting."""
    assert f"| `{name}` |" in PAGE


def test_the_file_on_the_page_is_one() -> None:
    """It can be copied."""
    example = PAGE.partition("```toml\n")[2].partition("```")[0]

    assert [] == unknown_keys(TomlFile("agentflow.toml", Path("agentflow.toml"), content=tomllib.loads(example)))


def test_every_code_of_the_doctor_is_documented() -> None:
    """With what to do: the codes are read from its source."""
    import re

    package = Path(__file__).resolve().parents[2] / "agentflow" / "cli"
    source = "".join(path.read_text("utf-8") for path in [package / "checks.py", *package.glob("check_*.py")])
    codes = set(
        re.findall(
            r'"((?:server|streams|capacity|consumer|planner|agents|clock|registry|versions|sandbox|dead|'
            r'disk|ports|doctor)\.[a-z_]+)"',
            source,
        )
    )
    page = (DOCS / "doctor.md").read_text("utf-8")

    assert codes
    assert doctor.__doc__
    assert [] == sorted(code for code in codes if f"`{code}`" not in page)
