"""What holds for every test: hypothesis' profile, and an environment that nobody has touched."""

import os
from pathlib import Path

import pytest

from tests.support.profiles import PROFILE, WIRE_EXAMPLES

_FOREIGN = ("AF_", "OPENAI_", "OTEL_")
_FOREIGN_NAMES = frozenset({"CI", "FORCE_COLOR", "NATS_CONTEXT", "NATS_URL", "NO_COLOR", "PY_COLORS"})
_HOMES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def pytest_report_header() -> str:
    """Say with the results how hard the property tests tried."""
    return f"hypothesis: profile {PROFILE}, {WIRE_EXAMPLES} for the wire"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take minutes: with several workers the others are done beside them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings, keys and folders of whoever runs the tests, so that they pass alike everywhere."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name in _FOREIGN_NAMES:
            monkeypatch.delenv(name)
    for name in _HOMES:
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
