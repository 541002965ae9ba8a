"""While a decision is made again the interpreter refuses to reach outside, and only then, and only there."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentflow.errors import Denied
from agentflow_streams.isolation import isolated


def test_sockets_are_refused_inside_and_allowed_again_behind_it() -> None:
    """The refusal has a code and names what was tried."""
    with isolated(), pytest.raises(Denied) as refused, socket.socket() as tried:
        tried.connect(("127.0.0.1", 9))
    assert "replay.isolated" == refused.value.error_code
    assert "socket" in str(refused.value.fields["event"])

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))


def test_names_are_not_looked_up() -> None:
    """A look-up is network as well."""
    with isolated(), pytest.raises(Denied):
        socket.getaddrinfo("localhost", 80)


def test_processes_are_refused() -> None:
    """Neither with a shell nor without one."""
    with isolated():
        with pytest.raises(Denied):
            subprocess.run([sys.executable, "-c", ""], check=False)
        with pytest.raises(Denied):
            os.system("true")  # noqa: S605, S607 - it must not run


def test_files_may_be_read_and_not_written(tmp_path: Path) -> None:
    """Reading is how modules are imported; writing is an effect."""
    there = tmp_path / "there"
    there.write_text("x")
    with isolated():
        assert "x" == there.read_text()
        for mode in ("w", "a", "x", "r+"):
            with pytest.raises(Denied):
                there.open(mode)
    assert "x" == there.read_text()


def test_other_threads_go_on() -> None:
    """A shell that reads the mesh elsewhere in the process is not stopped."""
    made: list[int] = []

    def elsewhere() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            made.append(free.getsockname()[1])

    with isolated():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert made


def test_it_may_be_nested_and_ends_when_something_is_raised() -> None:
    """An inner block does not open the outer one; an error does not leave it closed."""
    with isolated():
        with isolated():
            pass
        with pytest.raises(Denied):
            socket.socket()
    with pytest.raises(ValueError, match="out"), isolated():
        raise ValueError("out")
    socket.socket().close()
