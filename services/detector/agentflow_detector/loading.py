"""Reading a rules file: the shipped one, or the operator's."""

import importlib.resources
from pathlib import Path

import yaml

from agentflow.project import load_yaml
from agentflow_detector.errors import RulesError
from agentflow_detector.rules import RuleSet, parse_rules

SHIPPED = "shipped rules"
"""What the file of the package is called in messages."""


def load_rules(path: Path | None = None) -> RuleSet:
    """The rules of a YAML or JSON file, or the shipped ones; raises `RulesError` with the file and what is wrong."""
    where = SHIPPED if path is None else str(path)
    try:
        text = shipped_text() if path is None else path.read_text("utf-8")
        content = load_yaml(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RulesError(f"{where}: {error}", code="rules.unreadable", where=where) from error
    return parse_rules(content, where)


def shipped_text() -> str:
    """The text of the shipped rules."""
    return importlib.resources.files("agentflow_detector").joinpath("rules.yaml").read_text("utf-8")
