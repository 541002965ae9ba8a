"""`nats` command lines as raw NATS protocol: what the command asks of the server, and the part of its output that counts.

Only what the page uses is known; another command, argument or flag is an error, so that a page that grows is noticed.
"""

import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.plain.rawnats import RawNats, Received


class Unknown(Exception):
    """A command line this interpreter does not know."""


@dataclass(slots=True)
class Line:
    """A command line taken apart: its words, switches and options."""

    words: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, argv: Sequence[str], switches: set[str], options: set[str]) -> "Line":
        """Take apart; raises `Unknown` for a flag that is neither."""
        line, rest = cls(), list(argv)
        while rest:
            word = rest.pop(0)
            if word in switches:
                line.flags[word] = ""
            elif word in options:
                line.flags[word] = rest.pop(0)
            elif word.startswith("-"):
                raise Unknown(f"flag {word}")
            else:
                line.words.append(word)
        return line


Command = Callable[[RawNats, Sequence[str]], str]
"""Does what a command does, and returns what it prints."""


def request(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats req [--raw] [-H K:V] SUBJECT BODY`."""
    line = Line.of(argv, {"--raw"}, {"-H"})
    subject, body = line.words
    name, _, value = line.flags.get("-H", "").partition(":")
    return nats.request(subject, body.encode(), headers={name: value} if name else None).body.decode()


def subscribe(nats: RawNats, argv: Sequence[str]) -> Callable[[], str]:
    """`nats sub --raw --count N [--all] SUBJECT`; what is returned waits for the messages."""
    line = Line.of(argv, {"--raw", "--all"}, {"--count"})
    [subject] = line.words
    count = int(line.flags["--count"])
    if "--all" in line.flags:
        names = _api(nats, "STREAM.NAMES", {"subject": subject})["streams"]
        config = {"deliver_subject": "replayed.for.raw", "deliver_policy": "all", "filter_subject": subject}
        nats.subscribe("replayed.for.raw")
        _api(nats, f"CONSUMER.CREATE.{names[0]}", {"stream_name": names[0], "config": {**config, "ack_policy": "none"}})
    else:
        nats.subscribe(subject)
    nats.ping()
    return lambda: "\n".join(nats.until(subject).body.decode() for _ in range(count))


def stream_get(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats stream get STREAM --last-for SUBJECT`."""
    line = Line.of(argv, set(), {"--last-for"})
    [stream] = line.words
    found = _api(nats, f"STREAM.MSG.GET.{stream}", {"last_by_subj": line.flags["--last-for"]})
    return base64.b64decode(found["message"]["data"]).decode() if "message" in found else json.dumps(found)


def stream_view(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats stream view STREAM SIZE --raw --subject SUBJECT`."""
    line = Line.of(argv, {"--raw"}, {"--subject"})
    stream, size = line.words
    assert int(size) <= 25, "the command shows at most 25 at once"
    bodies, seq = list[str](), 1
    while len(bodies) < int(size):
        asked = {"seq": seq, "next_by_subj": line.flags["--subject"]}
        found = _api(nats, f"STREAM.MSG.GET.{stream}", asked)
        if "message" not in found:
            break
        bodies.append(base64.b64decode(found["message"].get("data", "")).decode())
        seq = found["message"]["seq"] + 1
    return "\n".join(bodies)


def stream_ls(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats stream ls --names`: without those of buckets."""
    line = Line.of(argv, {"--names"}, set())
    assert not line.words
    return "\n".join(name for name in sorted(_streams(nats)) if not name.startswith(("KV_", "OBJ_")))


def stream_info(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats stream info STREAM --json`."""
    [stream] = Line.of(argv, {"--json"}, set()).words
    return json.dumps(_api(nats, f"STREAM.INFO.{stream}"), indent=2)


def stream_subjects(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats stream subjects STREAM --names`."""
    [stream] = Line.of(argv, {"--names"}, set()).words
    return "\n".join(_subjects(nats, stream, ">"))


def kv_ls(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats kv ls --names` and `nats kv ls BUCKET`."""
    line = Line.of(argv, {"--names"}, set())
    if not line.words:
        return "\n".join(name.removeprefix("KV_") for name in _streams(nats) if name.startswith("KV_"))
    [bucket] = line.words
    prefix = f"$KV.{bucket}."
    return "\n".join(subject.removeprefix(prefix) for subject in _subjects(nats, f"KV_{bucket}", f"{prefix}>"))


def kv_get(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats kv get BUCKET KEY --raw`."""
    bucket, key = Line.of(argv, {"--raw"}, set()).words
    found = _api(nats, f"STREAM.MSG.GET.KV_{bucket}", {"last_by_subj": f"$KV.{bucket}.{key}"})
    return base64.b64decode(found["message"]["data"]).decode()


def object_ls(nats: RawNats, argv: Sequence[str]) -> str:
    """`nats object ls BUCKET --names`."""
    [bucket] = Line.of(argv, {"--names"}, set()).words
    subjects = _subjects(nats, f"OBJ_{bucket}", f"$O.{bucket}.M.>")
    return "\n".join(base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode() for subject in subjects)


def micro(verb: str) -> Command:
    """`nats micro ls|info|stats [NAME] --json`."""

    def ask(nats: RawNats, argv: Sequence[str]) -> str:
        words = Line.of(argv, {"--json"}, set()).words
        subject = ".".join(["$SRV", verb, *words])
        inbox = f"_INBOX.micro.{time.monotonic_ns()}"
        nats.subscribe(inbox)
        nats.publish(subject, b"", reply=inbox)
        answers: list[Received] = [nats.until(inbox)]
        deadline = time.monotonic() + 1.0  # whoever else is there answers as fast as the first
        while time.monotonic() < deadline:
            nats.pump(0.1)
        answers += [message for message in nats.received if message.subject == inbox]
        found = sorted((answer.json() for answer in answers), key=lambda each: str(each["name"]))
        return json.dumps(found, indent=2)

    return ask


COMMANDS: dict[tuple[str, ...], Command] = {
    ("req",): request,
    ("stream", "get"): stream_get,
    ("stream", "view"): stream_view,
    ("stream", "ls"): stream_ls,
    ("stream", "info"): stream_info,
    ("stream", "subjects"): stream_subjects,
    ("kv", "ls"): kv_ls,
    ("kv", "get"): kv_get,
    ("object", "ls"): object_ls,
    ("micro", "ls"): micro("INFO"),
    ("micro", "info"): micro("INFO"),
    ("micro", "stats"): micro("STATS"),
}


def run(nats: RawNats, argv: Sequence[str]) -> str:
    """What a command line prints; raises `Unknown`."""
    for length in (1, 2):
        if command := COMMANDS.get(tuple(argv[1 : 1 + length])):
            return command(nats, argv[1 + length :])
    raise Unknown(" ".join(argv))


def _api(nats: RawNats, verb: str, body: Any = None) -> Any:
    return nats.request(f"$JS.API.{verb}", b"" if body is None else json.dumps(body).encode()).json()


def _streams(nats: RawNats) -> list[str]:
    names: list[str] = _api(nats, "STREAM.NAMES")["streams"]
    return names


def _subjects(nats: RawNats, stream: str, pattern: str) -> list[str]:
    found = _api(nats, f"STREAM.INFO.{stream}", {"subjects_filter": pattern})
    return sorted(found["state"].get("subjects") or {})
