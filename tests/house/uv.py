"""uv as the house tests call it: the pinned one, in the environment of whoever started the tests."""

import os
import subprocess
import sys
from pathlib import Path

from tests.house.workspace import ROOT

UV = Path(sys.executable).with_name("uv")
"""The uv that `make` installed beside this Python."""

_ENVIRONMENT = {"UV_SYSTEM_CERTS": "true", **os.environ}
"""As it was before the tests' own cleaning, so that packages come from the user's cache and index."""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; when it fails, its output is the failure."""
    done = subprocess.run(command, cwd=cwd, env=_ENVIRONMENT, check=False, capture_output=True, text=True)
    assert 0 == done.returncode, f"{command}\n{done.stdout}{done.stderr}"
