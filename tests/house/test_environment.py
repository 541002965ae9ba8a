"""Tests see nothing of whoever runs them."""

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.house.workspace import ROOT
from tests.support.profiles import PROFILE, WIRE_EXAMPLES, wire

_SETTINGS = {"AF_NATS_URL": "nats://elsewhere", "OPENAI_API_KEY": "a-key", "NATS_URL": "nats://elsewhere", "CI": "true"}


def test_a_test_sees_no_settings_and_no_folders_of_the_user() -> None:
    """Variables are gone and configuration would be looked for in an empty folder."""
    assert [] == [name for name in os.environ if name.startswith(("AF_", "OPENAI_")) or name in _SETTINGS]
    assert not Path(os.environ["XDG_CONFIG_HOME"]).exists()


def test_the_settings_of_the_user_are_hidden() -> None:
    """The test above passes for someone who has them set, and CI tries the wire format 10,000 times."""
    this = test_a_test_sees_no_settings_and_no_folders_of_the_user.__name__
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", this, __file__]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | _SETTINGS, check=False, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout
    assert "1 passed" in done.stdout
    assert "profile ci, 10000 for the wire" in done.stdout


@wire
@given(st.booleans())
def test_properties_of_the_wire_are_tried_the_most(anything: bool) -> None:
    """`wire` overrides only the number of examples; the profile's other settings stay."""
    assert anything in {True, False}
    assert WIRE_EXAMPLES == wire.max_examples > settings.get_profile(PROFILE).max_examples
    assert wire.deadline is None
