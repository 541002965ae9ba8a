"""The detector's settings, read once in `__main__`."""

from pathlib import Path
from typing import Annotated, get_args

import pydantic
from pydantic import Field
from pydantic_settings import NoDecode

from agentflow.payloads import Action
from agentflow.settings import ServiceSettings

ACTIONS = get_args(Action)
"""What may be done about a finding."""


class DetectorSettings(ServiceSettings):
    """What the detector takes beside what every service takes."""

    detector_rules: Path | None = Field(None, description="rules file; without one the shipped rules are in force")
    security_anomaly_action: Annotated[tuple[Action, ...], NoDecode] = Field(
        ("flag", "auto_block", "escalate"),
        description="what may be done about a finding, by comma: flag, auto_block, escalate",
    )
    detector_snapshot_messages: int = Field(500, ge=1, description="messages folded between two snapshots")
    detector_snapshot_seconds: float = Field(5.0, gt=0, description="seconds between two snapshots at most")

    @pydantic.field_validator("security_anomaly_action", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        """`flag,auto_block` as its words; each is one of those there are."""
        words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
        if isinstance(words, list | tuple) and (not words or any(word not in ACTIONS for word in words)):
            raise ValueError(f"allowed are {', '.join(ACTIONS)}, by comma")
        return words
