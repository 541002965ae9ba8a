"""Surroundings that a test makes up: variables, and a folder with files."""

from pathlib import Path

from agentflow.configuration.layers import Surroundings


def around(folder: Path, context: str = "", **environment: str) -> Surroundings:
    """What settings are read from: `folder` is the working directory, and `home` in it the home."""
    return Surroundings({"HOME": str(folder / "home"), **environment}, folder, context)


def write(folder: Path, name: str, text: str) -> Path:
    """A file of settings, its folder too."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


USER_FILE = "home/.config/agentflow/config.toml"
"""The user's own file, as `around` sees it."""
