"""Check messages of an agentflow mesh with nothing but the standard library: `verify_envelope.py [FILE ...]`, or stdin.

One body a line, or subject TAB body: nats sub --stream AF_AUDIT --all --terminate-at-end --raw | verify_envelope.py
Checks sha256("{" + body[84:]), the subject if given, and each chain's links. No envelope is a problem unless its subject
ends in `.in`. Chains on several streams (handling, decision) may have gaps in one; a tail cut off shows nowhere.
"""

import fileinput
import hashlib
import json
import sys

problems, plain, known = list[str](), list[str](), dict[str, str]()
chains: dict[str, list[tuple[int, int, str, str]]] = {}
with fileinput.input(mode="rb") as given:
    lines = [each.rstrip(b"\r\n") for each in given]
for number, line in enumerate(lines, 1):
    subject, tab, body = line.partition(b"\t") if b"\t" in line else (b"", b"", line)
    if line and not body.startswith(b'{"envelope_hash":"'):
        (plain if subject.endswith(b".in") else problems).append(f"line {number}: not an envelope: {line[:60]!r}")
    elif line and body[18:82] != (actual := hashlib.sha256(b"{" + body[84:]).hexdigest()).encode():
        problems.append(f"line {number}: edited, the bytes hash to {actual}")
    elif line:
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
counts = f"{len(known)} envelopes, {len(plain)} plain lines, {len(chains)} chains, {len(problems)} problems"
print(*problems, *plain, counts, sep="\n")  # noqa: T201 - its output
sys.exit(bool(problems) if known else "no envelope was seen, so nothing was checked")
