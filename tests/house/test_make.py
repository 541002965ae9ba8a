"""`make` explains itself, and CI and pre-commit say what it says."""

import os
import re
import subprocess

import yaml

from tests.house.workspace import ROOT

_TARGETS = {"bench", "check", "clean", "cov", "demo", "dev", "fmt", "help", "lock", "setup", "test"}


def make(*arguments: str) -> str:
    """What `make` prints, called as by hand even when `make` called us."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_make_alone_lists_every_target() -> None:
    """Nothing is built by accident, and no target is left unexplained."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", make(), re.MULTILINE))

    assert phony is not None
    assert set(phony[1].split()) == set(listed)
    assert set(listed) >= _TARGETS


def test_make_help_is_make_alone() -> None:
    """Those who guess `make help` see the same."""
    assert make() == make("help")


def test_ci_checks_first_and_tests_last() -> None:
    """The output ends with pytest's own summary."""
    calls = re.findall(r"^make (\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)

    assert ["check", "test"] == calls
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_hooks_call_make() -> None:
    """No hook brings tools or versions of its own."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for repository in repositories for hook in repository["hooks"]]

    assert ["local"] == [repository["repo"] for repository in repositories]
    assert all(entry.startswith("make ") for entry in entries)
    assert {entry.removeprefix("make ") for entry in entries} <= set(re.findall(r"^  ([a-z-]+) ", make(), re.MULTILINE))
