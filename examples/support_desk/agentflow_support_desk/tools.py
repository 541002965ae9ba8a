"""The desk's tools; each call runs in a sandboxed process of the executor.

`send_response` and `open_case` cannot be undone: they append a line to a file that stands for the mail server and the
case system. They never look whether the line is there already, so that whoever counts lines sees every effect there
was; only their checks look, and only when recovery asks.
"""

import json
from dataclasses import asdict
from typing import Any, BinaryIO

from agentflow.tools import CheckResult, ToolContext, tool
from agentflow_support_desk.knowledge import search
from agentflow_support_desk.writer import check_reply as problems_of


@tool(effect="pure", permissions=["fs.read:index"], timeout=10)
def knowledge_search(ctx: ToolContext, query: str, intent: str = "", limit: int = 3) -> dict[str, Any]:
    """Find the knowledge-base articles that fit a customer's words best."""
    hits = search(ctx.files["index"].read(), query, intent=intent or None, limit=limit)
    return {"hits": [asdict(hit) for hit in hits]}


@tool(effect="pure", timeout=10)
def check_reply(ctx: ToolContext, body: str) -> dict[str, Any]:
    """Name the reasons why a reply must not be sent as it is."""
    return {"problems": problems_of(body)}


@tool(effect="pure", timeout=10)
def payment_status(ctx: ToolContext, reference: str) -> dict[str, Any]:
    """What became of a payment; the bank is made up, and so is the answer, but it is always the same."""
    return {"reference": reference, "status": ("settled", "pending", "unknown")[sum(reference.encode()) % 3]}


@tool(effect="irreversible", permissions=["fs.append:outbox"], timeout=10)
def send_response(ctx: ToolContext, ticket: str, subject: str, body: str) -> dict[str, Any]:
    """Send an answer to the customer: one line in the outbox, with the call's id."""
    _append(ctx.files["outbox"], {"call_id": ctx.call_id, "ticket": ticket, "subject": subject, "body": body})
    return {"sent": ticket}


@send_response.check
def was_sent(ctx: ToolContext, ticket: str, subject: str, body: str) -> CheckResult:
    """Whether the outbox has this call's line."""
    return CheckResult(happened=_has(ctx.files["outbox"], ctx.call_id), output={"sent": ticket})


@tool(effect="irreversible", permissions=["fs.append:cases"], timeout=10)
def open_case(ctx: ToolContext, ticket: str, reason: str, text: str) -> dict[str, Any]:
    """Hand a ticket over to a person: one line in the list of cases, with the call's id."""
    _append(ctx.files["cases"], {"call_id": ctx.call_id, "ticket": ticket, "reason": reason, "text": text})
    return {"case": ticket}


@open_case.check
def was_opened(ctx: ToolContext, ticket: str, reason: str, text: str) -> CheckResult:
    """Whether the list of cases has this call's line."""
    return CheckResult(happened=_has(ctx.files["cases"], ctx.call_id), output={"case": ticket})


def _append(file: BinaryIO, line: dict[str, str]) -> None:
    """One write of one line: the file is opened for appending, so lines of several processes never mix."""
    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    file.flush()


def _has(file: BinaryIO, call_id: str) -> bool:
    file.seek(0)
    return any(json.loads(line)["call_id"] == call_id for line in file if line.endswith(b"\n"))
