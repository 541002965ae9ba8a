"""Showing addresses without the user and password in them. Pure, and light: whatever shows a URL imports it."""

import re

MASK = "***"
"""What stands where a secret was."""

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s,]*@")


def mask_url(text: str) -> str:
    """The text with the user information of every URL in it masked: `nats://***@host:4222`."""
    return _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
