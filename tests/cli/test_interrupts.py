"""Ctrl-C and SIGTERM as something to wait for."""

import asyncio
import os
import signal

import pytest

from agentflow.cli.interrupts import Interrupts
from agentflow.errors import MeshError


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_is_waited_for(which: signal.Signals, code: int) -> None:
    """And tells the exit code it would give."""
    with Interrupts() as interrupts:
        os.kill(os.getpid(), which)
        await asyncio.wait_for(interrupts.wait(), 5)

        assert code == interrupts.exit_code


async def test_work_that_is_not_interrupted_is_done() -> None:
    """To its end."""
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(True)

    with Interrupts() as interrupts:
        assert await interrupts.unless_interrupted(work())
    assert [True] == done


async def test_work_that_is_interrupted_cleans_up_first() -> None:
    """It is cancelled, and its clean-up is waited for."""
    cleaned = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    with Interrupts() as interrupts:
        assert not await interrupts.unless_interrupted(work())
    assert [True] == cleaned


async def test_work_that_fails_fails() -> None:
    """Its error is the caller's."""

    async def work() -> None:
        raise MeshError("no")

    with Interrupts() as interrupts, pytest.raises(MeshError):
        await interrupts.unless_interrupted(work())


async def test_an_impatient_person_is_told_to_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """A second Ctrl-C breaks nothing off: stopping has deadlines of its own."""
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        await interrupts.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert 130 == interrupts.exit_code

    assert "still stopping" in capsys.readouterr().err


async def test_afterwards_signals_are_what_they_were() -> None:
    """A block leaves no handler behind."""
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert before != signal.getsignal(signal.SIGTERM)

    assert signal.SIG_DFL == signal.getsignal(signal.SIGTERM)
