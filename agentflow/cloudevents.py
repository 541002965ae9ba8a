"""Envelopes as CloudEvents, for consumers that speak that instead. Pure.

The form is CloudEvents 1.0.2 in its JSON format, structured (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/
formats/json-format.md). The event is a view: evidence is the stored body, whose hash it carries as the extension
`envelopehash`; `causationid`, `chain` and `chainseq` are extensions too.
"""

from typing import Any

import msgspec

from agentflow.envelope import Sealed, unseal

SPEC_VERSION = "1.0"


def from_sealed(sealed: Sealed) -> dict[str, Any]:
    """The event an envelope is; its `data` is the payload as it is stored, a claim check included."""
    envelope = sealed.envelope
    event = {
        "specversion": SPEC_VERSION,
        "id": envelope.id,
        "source": f"/agentflow/{envelope.sender}",
        "type": f"agentflow.{envelope.schema.replace('/', '.v')}",
        "subject": envelope.subject,
        "time": envelope.ts,
        "datacontenttype": "application/json",
        "data": msgspec.json.decode(envelope.payload),
        "traceparent": f"00-{envelope.trace_id}-{envelope.span_id}-01",
        "envelopehash": sealed.hash,
        "chain": envelope.chain,
        "chainseq": envelope.chain_seq,
    }
    if envelope.causes:
        event["causationid"] = envelope.causes[0].id
    if sealed.workflow_id:
        event["workflowid"] = sealed.workflow_id
    return event


def from_stored(body: bytes, subject: str) -> dict[str, Any]:
    """The same for a stored body, checked on the way.

    As a `form` of a subscription: `lambda message: from_stored(message.body, message.subject)`. Raises `EnvelopeError` for a body that is no envelope, or is not what was sealed for its subject.
    """
    return from_sealed(unseal(body, subject))
