"""The effect ledger under killed, frozen and doubled executors: every interleaving of a small world, many of a larger.

Proved for compensable and irreversible tools: the effect never happens twice; `completed` means that it happened, `failed`
and `refused` that it did not and will not; `unknown` is never said where a check can tell. For all: everybody who answers
gives the same answer, and a call that is left alone ends. The last tests take a rule away and see the proof fail.
"""

from collections import deque
from collections.abc import Iterator
from datetime import timedelta

from agentflow.registry import Effect
from tests.services.executor.ledger_model import CheckKind, Rules, World

CASES: list[tuple[Effect, CheckKind]] = [
    ("pure", "none"),
    ("idempotent", "none"),
    ("irreversible", "truthful"),
    ("irreversible", "cannot tell"),
    ("irreversible", "none"),
]
LATE = timedelta(hours=1)


def explore(rules: Rules, entries: int) -> Iterator[World]:
    """Every world that can be reached with so many entries in the log, each once, nearest first."""
    begin = World(rules)
    seen, queue = {begin.key()}, deque([begin])
    while queue:
        world = queue.popleft()
        yield world
        for successor in world.successors():
            key = successor.key()
            if key not in seen and len(successor.log) <= entries:
                seen.add(key)
                queue.append(successor)
