"""Settings put together from their layers: the value of each, where it came from, and everything that is wrong."""

import importlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic
from pydantic_settings import BaseSettings

from agentflow.configuration.layers import (
    PREFIX,
    SECTIONS,
    Surroundings,
    TomlFile,
    Value,
    layers_of,
    toml_files,
)
from agentflow.configuration.platform import NOT_USED, OTHER_VARIABLES, PlatformSettings
from agentflow.configuration.problems import Problem, closest, suggestion
from agentflow.configuration.showing import found
from agentflow.masking import mask_url

S = TypeVar("S", bound=BaseSettings)


@dataclass(frozen=True, slots=True)
class Resolution(Generic[S]):
    """One settings class, read."""

    settings: S | None
    """None where something is wrong."""
    origins: Mapping[str, Value]
    """Where each value came from that is not a default."""
    problems: tuple[Problem, ...]


def resolve(
    settings: type[S],
    flags: Mapping[str, Any] | None = None,
    surroundings: Surroundings | None = None,
    *,
    section: str | None = None,
) -> Resolution[S]:
    """Read every layer of a settings class. `section` is the table of files that is its own; by default its service's."""
    around = surroundings or Surroundings.here()
    problems: list[Problem] = []
    files = toml_files(around, problems)
    own = section_of(settings) if section is None else section
    origins: dict[str, Value] = {}
    for layer in reversed(layers_of(settings, own, flags or {}, around, files, problems)):
        origins.update(layer)
    value: S | None = None
    wrong: list[dict[str, Any]] = []
    try:
        value = settings(**{name: each.raw for name, each in origins.items()})
    except pydantic.ValidationError as error:
        wrong = [dict(each) for each in error.errors(include_url=False, include_context=False)]
    problems += [_invalid(settings, origins, each) for each in wrong]
    return Resolution(value if not problems else None, origins, tuple(problems))


def _invalid(settings: type[BaseSettings], origins: Mapping[str, Value], error: Mapping[str, Any]) -> Problem:
    name = str(error["loc"][0]) if error["loc"] else ""
    origin = origins.get(name)
    where = origin.where if origin else f"{PREFIX}{name.upper()}"
    info = settings.model_fields.get(name)
    secret = info is not None and "SecretStr" in str(info.annotation)
    allowed = mask_url(str(error["msg"]))
    described = f" ({info.description})" if info is not None and info.description else ""
    return Problem(where, found(origin.raw if origin else None, secret=secret), allowed + described, "config.invalid")


def check(surroundings: Surroundings | None = None) -> list[Problem]:
    """What is wrong whatever the process: keys of files that nobody knows, and settings of the platform."""
    around = surroundings or Surroundings.here()
    ignored: list[Problem] = []  # unreadable files are told by `resolve`
    files = toml_files(around, ignored)
    unknown = [problem for file in files for problem in unknown_keys(file)]
    platform = resolve(PlatformSettings, None, around, section="")
    return [*unknown, *(each for each in platform.problems if each.code == "config.invalid")]


def unknown_keys(file: TomlFile) -> list[Problem]:
    """Keys of a file that no settings have. A table of a service that is not installed here is left to where it is."""
    common = {*common_settings().model_fields, *PlatformSettings.model_fields}
    problems = []
    for key, value in file.content.items():
        if key in SECTIONS and isinstance(value, dict):
            if (settings := settings_of(key)) is not None:
                known = set(settings.model_fields)
                problems += [_unknown(file, key, each, known) for each in value if each not in known]
        elif key not in common:
            problems.append(_unknown(file, "", key, {*common, *(f"[{name}]" for name in SECTIONS)}))
    return problems


def _unknown(file: TomlFile, table: str, key: str, known: set[str]) -> Problem:
    homes = [name for name in SECTIONS if name != table and key in _fields(name)]
    allowed = f"it belongs into [{homes[0]}]" if homes else suggestion(key, known)
    named = f"the unknown key {key!r}" + (f" in [{table}]" if table else "")
    return Problem(file.where(table, key), named, allowed, "config.unknown_key")


def _fields(section: str) -> set[str]:
    settings = settings_of(section)
    return set(settings.model_fields) if settings else set()


def warnings(surroundings: Surroundings | None = None, *, likely: bool = False) -> list[Problem]:
    """What is no error and should be known: unknown `AF_*` variables, and settings nothing reads yet.

    Other programs may use the prefix too; `likely` leaves out what is not like any variable of ours.
    """
    around = surroundings or Surroundings.here()
    platform = resolve(PlatformSettings, None, around, section="")
    unused = [
        Problem(value.where, "a setting that is not used by this version", "it has no effect", "config.not_used")
        for name, value in platform.origins.items()
        if name in NOT_USED
    ]
    return [*unused, *_unknown_variables(around, likely=likely)]


def _unknown_variables(around: Surroundings, *, likely: bool) -> list[Problem]:
    known = known_variables()
    strangers = sorted(name for name in around.environment if name.startswith(PREFIX) and name not in known)
    return [
        Problem(name, "an unknown variable", suggested or "no setting has this name", "config.unknown_variable")
        for name in strangers
        if (suggested := f"did you mean {near}?" if (near := closest(name, known)) else "") or not likely
    ]


def known_variables() -> set[str]:
    """The `AF_*` variables of whatever is installed here."""
    classes: Sequence[type[BaseSettings] | None] = (
        common_settings(),
        PlatformSettings,
        *(settings_of(name) for name in SECTIONS),
    )
    names = {f"{PREFIX}{name.upper()}" for each in classes if each is not None for name in each.model_fields}
    return names | set(OTHER_VARIABLES)


def common_settings() -> type[BaseSettings]:
    """What every service takes."""
    from agentflow.settings import ServiceSettings

    return ServiceSettings


def settings_of(section: str) -> type[BaseSettings] | None:
    """The settings class of a service: the one its module `settings` defines; None where it is not installed."""
    package = f"agentflow_{section}"
    if section not in SECTIONS or importlib.util.find_spec(package) is None:
        return None
    try:
        module = importlib.import_module(f"{package}.settings")
    except ModuleNotFoundError:
        return common_settings()
    own = [each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__]
    return next((each for each in own if issubclass(each, BaseSettings)), common_settings())


def section_of(settings: type[BaseSettings]) -> str:
    """The table of files that is a settings class's own: that of the distribution which defines it."""
    name = settings.__module__.partition(".")[0].removeprefix("agentflow_")
    return name if name in SECTIONS else ""
