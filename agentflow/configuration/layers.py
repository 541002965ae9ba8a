"""The layers settings are read from, the strongest first. pydantic-settings reads each; here is only their order.

    flags
    AF_* variables, then for the broker NATS_URL and NATS_CONTEXT
    .env
    ./agentflow.toml, then [tool.agentflow] of ./pyproject.toml
    $XDG_CONFIG_HOME/agentflow/config.toml
    defaults

In a file, keys at the top are for every process, and those of a table named like a service (`[executor]`) for that
service; the table is stronger. `AF_SETTINGS_DIR` names another folder than the working directory.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PyprojectTomlConfigSettingsSource,
    TomlConfigSettingsSource,
)

from agentflow.configuration.contexts import address_of
from agentflow.configuration.problems import Problem
from agentflow.errors import ConfigError

SECTIONS = ("planner", "runtime", "executor", "detector", "streams")
"""Tables a file may have: the services, and what makes their streams."""

PREFIX = "AF_"
_PYPROJECT = ("tool", "agentflow")


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was found, not yet checked."""

    raw: Any
    layer: str
    """`flag`, `environment`, `.env`, `agentflow.toml`, `pyproject.toml`, `config.toml` or `default`."""
    where: str
    """`--flag`, a variable's name, `file:line`."""


Layer = Mapping[str, Value]
"""Values by the name of their setting."""


@dataclass(slots=True)
class TomlFile:
    """A file of settings, as it is."""

    layer: str
    path: Path
    header: tuple[str, ...] = ()
    content: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def where(self, table: str, key: str) -> str:
        """`file:line` of a key."""
        inside = ".".join((*self.header, *((table,) if table else ())))
        line = line_of(self.text, inside, key)
        return f"{self.path}:{line}" if line else str(self.path)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What settings are read from, beside flags."""

    environment: Mapping[str, str]
    folder: Path
    context: str = ""
    """A context of the nats CLI that was asked for by a flag."""

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None, context: str = "") -> "Surroundings":
        """Those of this process."""
        found = os.environ if environment is None else environment
        return cls(found, Path(found.get("AF_SETTINGS_DIR") or Path.cwd()), context)


def line_of(text: str, table: str, key: str) -> int:
    """The line of `key` in a table of a TOML text (from 1), 0 where it is not found."""
    inside, wanted = "", re.compile(rf"""\s*(export\s+)?["']?{re.escape(key)}["']?\s*=""", re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            inside = header[1].replace('"', "").replace(" ", "")
        elif inside == table and wanted.match(line):
            return number
    header_line = re.search(rf"^[ \t]*\[\s*{re.escape(f'{table}.{key}' if table else key)}\s*[\].]", text, re.MULTILINE)
    return text.count("\n", 0, header_line.start()) + 1 if header_line else 0


def toml_files(surroundings: Surroundings, problems: list[Problem]) -> list[TomlFile]:
    """The files of settings there are, the strongest first; what cannot be read is a problem."""
    environment, folder = surroundings.environment, surroundings.folder
    home = Path(environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or Path.home()) / ".config")
    candidates = (
        TomlFile("agentflow.toml", folder / "agentflow.toml"),
        TomlFile("pyproject.toml", folder / "pyproject.toml", _PYPROJECT),
        TomlFile("config.toml", home / "agentflow" / "config.toml"),
    )
    return [file for file in candidates if file.path.is_file() and _read(file, problems)]


class _AnySettings(BaseSettings):
    """A model without fields, to read files with that are checked later."""

    model_config = {"extra": "allow", "pyproject_toml_table_header": _PYPROJECT}


def _read(file: TomlFile, problems: list[Problem]) -> bool:
    reader = PyprojectTomlConfigSettingsSource if file.header else TomlConfigSettingsSource
    try:
        content = reader(_AnySettings, toml_file=file.path).toml_data
        file.text = file.path.read_text("utf-8")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, AttributeError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        problems.append(Problem(str(file.path), "", f"cannot be read: {told}", "config.unreadable"))
        return False
    if not isinstance(content, dict):
        problems.append(Problem(str(file.path), "", "[tool.agentflow] is not a table", "config.unreadable"))
        return False
    file.content = content
    return bool(content)


def layers_of(
    settings: type[BaseSettings],
    section: str,
    flags: Mapping[str, Any],
    surroundings: Surroundings,
    files: list[TomlFile],
    problems: list[Problem],
) -> list[Layer]:
    """Every layer of a settings class, the strongest first."""
    return [
        {name: Value(raw, "flag", f"--{name.replace('_', '-')}") for name, raw in flags.items() if raw is not None},
        *([_context(settings, surroundings, problems)] if surroundings.context else []),
        _environment(settings, surroundings, problems),
        *([] if surroundings.context else [_nats(settings, surroundings, problems)]),
        _dotenv(settings, surroundings, problems),
        *(_table(settings, file, section) for file in files),
    ]


def _environment(settings: type[BaseSettings], surroundings: Surroundings, problems: list[Problem]) -> Layer:
    source = EnvSettingsSource(settings, env_prefix=PREFIX)
    source.env_vars = {name.lower(): value for name, value in surroundings.environment.items() if value}
    return _variables(source, "environment", lambda name: name, problems)


def _dotenv(settings: type[BaseSettings], surroundings: Surroundings, problems: list[Problem]) -> Layer:
    path = surroundings.folder / ".env"
    if not path.is_file():
        return {}
    try:
        source = DotEnvSettingsSource(settings, env_file=path, env_prefix=PREFIX)
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), "", f"cannot be read: {type(error).__name__}", "config.unreadable"))
        return {}
    source.env_vars = {name: value for name, value in source.env_vars.items() if value}
    return _variables(source, ".env", lambda name: f"{path}:{line_of(text, '', name)}", problems)


def _variables(source: EnvSettingsSource, layer: str, where: Any, problems: list[Problem]) -> Layer:
    """The values a source of variables has, each decoded by itself, so that one that cannot be hides no other."""
    found: dict[str, Value] = {}
    for name, info in source.settings_cls.model_fields.items():
        raw, _, is_complex = source.get_field_value(info, name)
        if raw is None:
            continue
        place = where(f"{PREFIX}{name.upper()}")
        try:
            found[name] = Value(source.prepare_field_value(name, info, raw, is_complex), layer, place)
        except ValueError:
            problems.append(Problem(place, "a value that is not JSON", "a list or an object is JSON", "config.invalid"))
    return found


def _nats(settings: type[BaseSettings], surroundings: Surroundings, problems: list[Problem]) -> Layer:
    """What users of other NATS tools have set already."""
    if "nats_url" not in settings.model_fields:
        return {}
    if url := surroundings.environment.get("NATS_URL"):
        return {"nats_url": Value(url, "environment", "NATS_URL")}
    name = surroundings.environment.get("NATS_CONTEXT", "")
    if not name or surroundings.environment.get(f"{PREFIX}NATS_URL"):
        return {}  # a context that is not asked need not be usable
    return _address(name, "environment", "NATS_CONTEXT", surroundings, problems)


def _context(settings: type[BaseSettings], surroundings: Surroundings, problems: list[Problem]) -> Layer:
    if "nats_url" not in settings.model_fields:
        return {}
    return _address(surroundings.context, "flag", "--context", surroundings, problems)


def _address(name: str, layer: str, where: str, surroundings: Surroundings, problems: list[Problem]) -> Layer:
    try:
        return {"nats_url": Value(address_of(name, surroundings.environment), layer, where)}
    except ConfigError as error:
        problems.append(Problem(where, repr(name[:80]), error.message, error.error_code))
        return {}


def _table(settings: type[BaseSettings], file: TomlFile, section: str) -> Layer:
    """What a file says for a settings class; its own table is stronger than the top."""
    own = file.content.get(section) if section else None
    tables = [("", file.content), *([(section, own)] if isinstance(own, dict) else [])]
    return {
        name: Value(_resolved(settings, name, table[name], file.path), file.layer, file.where(of, name))
        for of, table in tables
        for name in settings.model_fields
        if name in table
    }


def _resolved(settings: type[BaseSettings], name: str, raw: Any, path: Path) -> Any:
    """A path in a file is meant from where the file is."""
    kind = settings.model_fields[name].annotation
    is_path = kind is Path or Path in get_args(kind)
    return path.parent / raw if is_path and isinstance(raw, str) else raw
