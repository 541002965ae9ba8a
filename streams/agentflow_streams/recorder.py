"""Takes runs down from a mesh, with all that is needed to decide them again elsewhere."""

from collections.abc import Sequence

from agentflow.envelope import ClaimCheck, claim_in, unseal
from agentflow.errors import EnvelopeError, EvidenceError, NotStored
from agentflow.ids import check_token
from agentflow.mesh.transport import Message
from agentflow.payloads import Decision
from agentflow.registry import ARTIFACTS
from agentflow_streams.decisions import consumed_by, definition_of, read_decision
from agentflow_streams.history import RUN_STREAM
from agentflow_streams.readonly import Readable
from agentflow_streams.recordings import FORMAT, Blob, Histories, Kept
from agentflow_streams.sources import Source, kind_of, run_of


async def record_runs(mesh: Readable, runs: Sequence[str] = ()) -> Histories:
    """The recorded histories of some runs, or of all; raises `NotStored` for one of which nothing is stored.

    What is missing on the mesh is missing in them too.
    """
    info = await mesh.stream_info(RUN_STREAM)
    if info is None:
        raise NotStored(f"there is no stream {RUN_STREAM}", code="stream.unknown", stream=RUN_STREAM)
    wanted = list(dict.fromkeys(runs)) or await _all(mesh, info.last_seq)
    taken = _Taken(mesh)
    for run in wanted:
        await taken.run(check_token(run, "workflow id"), info.last_seq)
    ordered = sorted(taken.messages.items())
    kept = tuple(Kept.of(message) for _, message in ordered)
    return Histories(FORMAT, tuple(wanted), kept, dict(sorted(taken.artifacts.items())))


async def _all(mesh: Readable, end: int) -> list[str]:
    found: dict[str, None] = {}
    async for message in mesh.read(RUN_STREAM, end=end):
        if kind_of(message.subject) == "workflow.out":
            found[run_of(message.subject)] = None
    return list(found)


class _Taken:
    """What was taken down so far."""

    def __init__(self, mesh: Readable) -> None:
        self._mesh, self._source = mesh, Source(mesh)
        self.messages: dict[tuple[str, int], Message] = {}
        self.artifacts: dict[str, Blob] = {}

    async def run(self, run: str, end: int) -> None:
        """Take down a run."""
        found = False
        async for message in self._source.run(run, end):
            found = True
            await self._keep(message)
            if kind_of(message.subject) == "workflow.out":
                await self._rests_on(message)
        if not found:
            raise NotStored(f"nothing is stored about run {run!r}", code="run.unknown", workflow=run)

    async def _keep(self, message: Message | None) -> None:
        """Keep a message, and the payload it refers to."""
        if message is None:
            return
        self.messages[message.stream, message.seq] = message
        if claim := _claim(message):
            await self._artifact(claim.artifact)

    async def _artifact(self, name: str) -> None:
        try:
            self.artifacts[name] = Blob.of(await self._mesh.artifact(ARTIFACTS, name))
        except (NotStored, EvidenceError):
            return  # missing there, missing here: a replay says so

    async def _rests_on(self, message: Message) -> None:
        """Keep what a decision rests on, and what it sent."""
        recorded = read_decision(await self._source.arrival(message))
        if isinstance(recorded, str):
            return
        if ref := definition_of(recorded.payload):
            await self._artifact(f"sha256-{ref.sha256}")
        _, timer = await self._source.context(recorded)
        if timer is not None:
            await self._keep(await self._mesh.get(timer.stream, consumed_by(recorded.payload)[0].seq))
        if isinstance(recorded.payload, Decision):
            for command in recorded.payload.commands:
                await self._keep(await self._source.stored_command(command.subject))


def _claim(message: Message) -> ClaimCheck | None:
    try:
        return claim_in(unseal(message.body, message.subject).envelope.payload)
    except EnvelopeError:
        return None
