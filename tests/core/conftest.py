"""What the core's tests share: log lines as objects, and the process-wide logging put back afterwards."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

Lines = Callable[[], list[dict[str, Any]]]
"""The log lines since it was last called."""


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """Read what was logged to stderr; every line must be one JSON object."""

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    yield read
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
