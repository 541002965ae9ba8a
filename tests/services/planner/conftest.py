"""What the planner's tests share: the spans of one test."""

from tests.telemetry.conftest import kept as kept  # noqa: PLC0414  # a fixture, used here too
