"""What the processes of a sandbox say to the executor: one JSON object a line."""

import json
import os
from typing import Any

MESSAGE = 2000
"""Characters of an error's message that are kept."""


def say(fd: int, **message: Any) -> None:
    """Write one line to a pipe."""
    write_line(fd, json.dumps(message).encode())


def write_line(fd: int, line: bytes) -> None:
    """Write a line that is JSON already."""
    left = memoryview(line + b"\n")
    while left:
        left = left[os.write(fd, left) :]
