"""What a body that is no envelope is known by once the planner has adopted it (architecture, section 3.5). Pure.

The id is a function of the place and the bytes, and the trace of the id: whoever sees the message, the planner that
takes it or the telemetry that watches it being taken, names it alike.
"""

import hashlib
from datetime import datetime

from agentflow.ids import new_id


def adopted_id(subject: str, time: datetime, body: bytes) -> str:
    """The id of a plain body stored under `subject` at the server's `time`."""
    digest = hashlib.sha256(b"|".join((subject.encode(), time.isoformat().encode(), body))).digest()
    return new_id(time, lambda count: digest[:count])


def adopted_trace(id: str) -> str:
    """The W3C trace id of a run that began with the plain body known as `id`."""
    return hashlib.sha256(id.encode()).hexdigest()[:32]
