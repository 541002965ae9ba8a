"""What the real services record verifies, while they work and afterwards; and what does not belong there is told."""

from pathlib import Path

import pytest

from agentflow.clock import SystemClock
from agentflow.mesh.transport import Transport
from agentflow_streams.findings import Verification
from agentflow_streams.verification import verify
from tests.e2e.desks import running_desk
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e]

RUNS = 6


async def verified(transport: Transport, workflow: str = "") -> Verification:
    """Now."""
    return await verify(transport, now=SystemClock().now(), workflow=workflow)


async def test_a_mesh_of_real_services_verifies(tmp_path: Path) -> None:
    """Planner, runtime and executor as processes: no alarm while they work, none at the end, nothing open.

    Then strangers publish: what is refused on record on an open input is accounted for; what stands where only the mesh
    may write is a warning once the planner or the executor has refused it on record, and foreign where nobody reads it.
    """
    async with running_desk(tmp_path) as running:
        transport = running.client.transport
        runs = [await running.client.submit("booking", {"amount": n}, id=f"r{n}") for n in range(RUNS)]
        for run in runs:
            result = await verified(transport)
            assert () == result.damages
            await run.result(timeout=60)
        await transport.publish("workflows.plain.in", b'{"goal":"booking","input":{"amount":9}}', stream="AF_MESSAGES")
        await transport.publish("workflows.junk.in", b"junk", stream="AF_MESSAGES")
        await transport.publish("workflows.r1.in", b"junk for a run that ended", stream="AF_MESSAGES")
        await transport.publish("agents.clerk.in", b"junk", stream="AF_AGENTS")

        async def all_accounted() -> Verification | None:
            found = await verified(transport)
            return found if found.adopted == 4 and not found.open_runs else None

        result = await eventually(all_accounted, "an account of every plain message", within=60)
        assert result is not None
        assert ((), ()) == (result.damages, result.warnings)
        assert RUNS + 2 == result.runs
        assert (await verified(transport, workflow="r3")).ok

        await transport.publish("workflows.p6.results.zzz", b"junk", stream="AF_MESSAGES")
        await transport.publish("tools.calls.abc", b"hello", stream="AF_AUDIT")

        async def all_refused() -> Verification | None:
            found = await verified(transport)
            return found if found.ok and len(found.warnings) == 2 else None

        result = await eventually(all_refused, "a record of both refusals", within=60)
        assert result is not None
        assert ["AF_AUDIT", "AF_MESSAGES"] == [warning.stream for warning in result.warnings]
        assert 4 == result.adopted

        stored = await transport.publish("workflows.r2.out", b"junk", stream="AF_MESSAGES")
        (damage,) = (await verified(transport)).damages
        assert ("foreign", "AF_MESSAGES", stored.seq) == (damage.kind, damage.stream, damage.seq)
