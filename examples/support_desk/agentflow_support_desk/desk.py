"""The desk's data directory: everything one run of the demo reads and writes, laid out before anything is started."""

import importlib.resources
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from agentflow_support_desk.errors import DataDirUsedError
from agentflow_support_desk.knowledge import build_index, load_articles
from agentflow_support_desk.tickets import MATERIAL

PACKAGE = "agentflow_support_desk"
DEFINITION = "support.yaml"


@dataclass(frozen=True, slots=True)
class Desk:
    """The files of one run."""

    directory: Path

    @property
    def project(self) -> Path:
        """The project file that runtime and executor read."""
        return self.directory / "agentflow.yaml"

    @property
    def index(self) -> Path:
        """The full-text index of the knowledge base."""
        return self.directory / "knowledge.sqlite"

    @property
    def outbox(self) -> Path:
        """Answers that were sent, a JSON line each."""
        return self.directory / "outbox.jsonl"

    @property
    def cases(self) -> Path:
        """Tickets handed to people, a JSON line each."""
        return self.directory / "cases.jsonl"

    @property
    def mesh(self) -> Path:
        """What the broker and the services keep."""
        return self.directory / "mesh"


def lay_out(directory: Path, examples: Path | None = None) -> Desk:
    """Make the files of a run; `examples` replaces the shipped ones the classifier learns from.

    Raises `MaterialError` for articles that cannot be read and `OSError` for a directory that cannot be written.
    """
    desk = Desk(directory)
    directory.mkdir(parents=True, exist_ok=True)
    desk.index.write_bytes(build_index(load_articles(MATERIAL / "articles")))
    desk.outbox.touch()
    desk.cases.touch()
    definition = importlib.resources.files(PACKAGE).joinpath("definitions", DEFINITION).read_bytes()
    (directory / DEFINITION).write_bytes(definition)
    desk.project.write_text(yaml.safe_dump(_project(desk, examples or MATERIAL / "examples.csv"), sort_keys=False))
    return desk


def require_unused(directory: Path) -> None:
    """Raise `DataDirUsedError` for a folder with the records of a run, or with a project that is not a desk's.

    What `lay_out` made alone is no hindrance: a demo that could not start can be started again.
    """
    desk = Desk(directory)
    for records in (desk.mesh / "jetstream", desk.outbox, desk.cases):
        if records.exists() and (records.is_dir() or records.stat().st_size):
            raise DataDirUsedError(directory, records)
    if desk.project.exists() and not desk.index.exists():
        raise DataDirUsedError(directory, desk.project)


def _project(desk: Desk, examples: Path) -> dict[str, object]:
    """Agents, tools, files the tools are granted, and who may call what; everything else is denied."""

    def tool(name: str, **grants: dict[str, str]) -> dict[str, object]:
        return {"use": f"{PACKAGE}.tools:{name}", **({"grants": grants} if grants else {})}

    return {
        "agents": [
            {"use": f"{PACKAGE}.agents:ClassifierAgent", "settings": {"examples": str(examples.resolve())}},
            {"use": f"{PACKAGE}.agents:writer"},
            {"use": f"{PACKAGE}.agents:bookkeeper"},
        ],
        "tools": [
            tool("knowledge_search", index={"path": desk.index.name, "mode": "read"}),
            tool("check_reply"),
            tool("payment_status"),
            tool("send_response", outbox={"path": desk.outbox.name, "mode": "append"}),
            tool("open_case", cases={"path": desk.cases.name, "mode": "append"}),
        ],
        "allow": {
            "agents": {"writer": ["check_reply"], "bookkeeper": ["payment_status"]},
            "workflows": {"support": ["knowledge_search", "send_response", "open_case"]},
        },
        "workflows": [DEFINITION],
    }


@dataclass(frozen=True, slots=True)
class Effects:
    """What the desk did to the outside, counted in its files."""

    sent: Counter[str]
    """Lines in the outbox, by ticket."""
    opened: Counter[str]
    """Lines in the list of cases, by ticket."""

    @property
    def duplicates(self) -> int:
        """Effects beyond the first of a ticket."""
        return sum(count - 1 for count in (self.sent + self.opened).values())

    def lost(self, answered: set[str], escalated: set[str]) -> int:
        """Tickets whose run says that something was done which the files do not show."""
        missing = [ticket for ticket in answered if not self.sent[ticket]]
        return len(missing) + len([ticket for ticket in escalated if not self.opened[ticket]])


def read_effects(desk: Desk) -> Effects:
    """Count what the files hold."""
    return Effects(Counter(_each(desk.outbox, "ticket")), Counter(_each(desk.cases, "ticket")))


def read_calls(desk: Desk) -> Counter[str]:
    """Lines in the files by the tool call that wrote them."""
    return Counter(_each(desk.outbox, "call_id")) + Counter(_each(desk.cases, "call_id"))


def _each(path: Path, member: str) -> Iterator[str]:
    for line in path.read_text("utf-8").splitlines():
        yield str(json.loads(line)[member])
