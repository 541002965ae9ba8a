"""Check messages of an agentflow mesh with nothing but the standard library.

One body a line on stdin, or subject TAB body, as any client dumps them:
    nats sub --stream AF_MESSAGES --all --terminate-at-end --raw | python verify_envelope.py

Checks sha256("{" + body[84:]), the subject where it is given, and the links of each chain. Chains that live on several
streams (handling, decision) may have gaps in a dump of one; a tail that was cut off shows nowhere.
"""

import hashlib
import json
import sys

problems: list[str] = []
chains: dict[str, list[tuple[int, int, str, str]]] = {}
known: dict[str, str] = {}
lines = sys.stdin.buffer.read().splitlines()
for number, line in enumerate(lines, 1):
    subject, tab, body = line.rpartition(b"\t")
    if not body.startswith(b'{"envelope_hash":"'):
        continue  # a plain message of a client, or the dump's own chatter
    if body[18:82] != (actual := hashlib.sha256(b"{" + body[84:]).hexdigest()).encode():
        problems.append(f"line {number}: edited, the bytes hash to {actual}")
        continue
    made = json.loads(body)
    if tab and subject.decode("latin-1") != made["subject"]:
        problems.append(f"line {number}: moved, {made['id']} belongs on {made['subject']}")
    known[made["id"]] = actual
    chains.setdefault(made["chain"], []).append((made["chain_seq"], number, made["prev_hash"], actual))
for chain, links in chains.items():
    kind, _, below = chain.partition(":")
    place, before = -1, known.get(below) if kind in ("handling", "decision", "audit") else "0" * 64
    for found, number, prev_hash, actual in sorted(links):
        if found > place + 1 and kind not in ("handling", "decision"):
            problems.append(f"line {number}: missing, places {place + 1} to {found - 1} of {chain}")
        elif found <= place or (found == place + 1 and before not in (None, prev_hash)):
            problems.append(f"line {number}: unlinked, place {found} of {chain} does not rest on the one before it")
        place, before = found, actual
print(*problems, f"{len(known)} envelopes, {len(chains)} chains, {len(problems)} problems", sep="\n")  # noqa: T201 - its output
sys.exit(bool(problems))
