"""Every setting there is, as `config show`, `config init` and the documentation list them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from agentflow.configuration.layers import PREFIX, SECTIONS
from agentflow.configuration.platform import NOT_USED, PlatformSettings
from agentflow.configuration.resolving import common_settings, settings_of
from agentflow.configuration.showing import shown


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting."""

    name: str
    table: str
    """Table of a file it belongs into; empty for the top."""
    kind: str
    """What it takes, in words."""
    default: Any
    description: str
    used: bool = True

    @property
    def variable(self) -> str:
        """Its variable."""
        return f"{PREFIX}{self.name.upper()}"


def settings() -> Iterator[Setting]:
    """Those every process takes, those of each service installed here, and those of the platform."""
    common = common_settings()
    yield from _of(common, "", set())
    for section in SECTIONS:
        if (own := settings_of(section)) is not None:
            yield from _of(own, section, set(common.model_fields))
    yield from _of(PlatformSettings, "", set())


def _of(model: type[BaseSettings], table: str, left_out: set[str]) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        if name not in left_out:
            used = model is not PlatformSettings or name not in NOT_USED
            yield Setting(name, table, kind_of(info), shown(info.default), info.description or "", used)


def kind_of(info: FieldInfo) -> str:
    """What a field takes: its type, or its values, and its bounds."""
    bounds = [f"{sign} {value:g}" for sign, name in _BOUNDS for value in _bound(info, name)]
    return " ".join([_type(info.annotation), *bounds])


_BOUNDS = (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt"))


def _bound(info: FieldInfo, name: str) -> list[float]:
    return [getattr(each, name) for each in info.metadata if getattr(each, name, None) is not None]


def _type(kind: Any) -> str:
    origin, given = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(given[0])
    if origin is Literal:
        return ", ".join(map(str, given))
    if origin in (Union, UnionType):
        return " or ".join(_type(each) for each in given if each is not NoneType)
    if origin in (tuple, list):
        return f"list of {_type(given[0])}"
    names = {str: "text", int: "integer", float: "number", bool: "true, false", Path: "path", SecretStr: "secret"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def as_toml() -> str:
    """A file with every setting, commented out, at its default; secrets are not for files."""
    lines = ["# Settings of agentflow. Flags and AF_* variables are stronger than this file.", ""]
    table = ""
    for each in sorted(settings(), key=lambda each: (("", *SECTIONS).index(each.table), not each.used)):
        if each.table != table:
            table = each.table
            lines += [f"[{table}]", ""]
        if each.kind == "secret":
            continue
        note = "" if each.used else " (not used by this version)"
        lines += [f"# {each.description or each.name}: {each.kind}{note}", f"# {each.name} = {_literal(each)}", ""]
    return "\n".join(lines)


def _literal(each: Setting) -> str:
    if isinstance(each.default, bool):
        return str(each.default).lower()
    if isinstance(each.default, int | float):
        return f"{each.default}"
    return f'"{each.default or ""}"'


def as_markdown() -> str:
    """The tables of the documentation."""
    found: list[str] = []
    for title, chosen in _groups():
        found += [f"### {title}", "", "| variable | key | takes | default | meaning |", "|---|---|---|---|---|"]
        for each in chosen:
            key = f"{each.table}.{each.name}" if each.table else each.name
            default = "" if each.default in (None, "") else f"`{_literal(each).strip(chr(34))}`"
            found.append(f"| `{each.variable}` | `{key}` | {each.kind} | {default} | {each.description} |")
        found.append("")
    return "\n".join(found)


def _groups() -> Iterator[tuple[str, list[Setting]]]:
    every = list(settings())
    yield "Every process", [each for each in every if not each.table and each.used]
    for section in SECTIONS:
        if chosen := [each for each in every if each.table == section]:
            yield f"[{section}]", chosen
    yield "Platform, not used by this version", [each for each in every if not each.used]
