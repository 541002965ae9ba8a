"""Showing values without their secrets. Pure."""

from typing import Any

from pydantic import SecretStr

from agentflow.masking import MASK, mask_url

_WIDTH = 80


def shown(value: Any) -> Any:
    """A setting's value as it may be shown: JSON types, secrets masked."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return mask_url(str(value))


def found(value: Any, *, secret: bool) -> str:
    """What was found where something else is allowed, in a few words; of a secret only that there is one."""
    if secret or isinstance(value, SecretStr):
        return "a value (not shown: it is a secret)"
    text = mask_url(repr(value))
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
