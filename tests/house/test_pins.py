"""The pins in `requirements/`: complete, hashed, agreeing with each other, and free of addresses."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.workspace import ROOT, Distribution, distributions, files, ours

_PINS = sorted((ROOT / "requirements").glob("*.txt"))
_SERVICES = [distribution for distribution in distributions() if distribution.is_service]


@dataclass(frozen=True)
class Pin:
    """One pinned package."""

    requirement: Requirement
    hashes: int

    @property
    def version(self) -> str:
        """The one version that it allows."""
        (specifier,) = self.requirement.specifier
        return specifier.version


def pins(path: Path) -> dict[str, Pin]:
    """The pins of a file by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [
        Pin(Requirement(line.partition(" --hash=")[0]), line.count("--hash=sha256:"))
        for line in text.splitlines()
        if line.strip()
    ]
    return {canonicalize_name(pin.requirement.name): pin for pin in found}


def unsatisfied(distribution: Distribution) -> list[str]:
    """What a distribution needs, extras included, and its pins do not give."""
    pinned = pins(distribution.pins)
    return [
        str(requirement)
        for requirement in distribution.requirements
        if (name := canonicalize_name(requirement.name)) not in ours()
        and not (name in pinned and requirement.specifier.contains(pinned[name].version, prereleases=True))
    ]


@pytest.mark.parametrize("path", _PINS, ids=lambda path: path.name)
def test_every_pin_is_one_version_with_its_hashes(path: Path) -> None:
    """Nothing else can be installed from a file of pins than what was looked at."""
    loose = [name for name, pin in pins(path).items() if pin.hashes == 0 or "==" not in str(pin.requirement.specifier)]

    assert pins(path)
    assert [] == loose


@pytest.mark.parametrize("path", _PINS, ids=lambda path: path.name)
def test_pins_name_packages_and_no_addresses(path: Path) -> None:
    """Packages come from wherever the user gets packages; our own are installed from the checkout."""
    lines = path.read_text().splitlines()

    assert [] == [line for line in lines if "://" in line or line.startswith("-") or " @ " in line]
    assert set(ours()).isdisjoint(pins(path))


@pytest.mark.parametrize("path", _PINS, ids=lambda path: path.name)
def test_all_files_agree_on_versions(path: Path) -> None:
    """What was tested is what a service or the demo runs with."""
    tested = pins(ROOT / "requirements/dev.txt")
    found = {name: pin.version for name, pin in pins(path).items() if path.stem != "bootstrap"}

    assert {name: tested[name].version for name in found} == found


@pytest.mark.parametrize("distribution", distributions(), ids=str)
def test_a_distribution_finds_all_it_needs_in_its_pins(distribution: Distribution) -> None:
    """With all its extras."""
    assert [] == unsatisfied(distribution)


@pytest.mark.parametrize("service", _SERVICES, ids=str)
def test_a_service_is_not_pinned_with_tools(service: Distribution) -> None:
    """What only development needs is not deployed."""
    assert {"mypy", "pytest", "ruff"}.isdisjoint(pins(service.pins))


def test_no_lock_file_is_kept() -> None:
    """`uv.lock` would record where packages were downloaded from."""
    assert ROOT / "uv.lock" not in files()
