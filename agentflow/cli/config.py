"""`agentflow config show`, `check` and `init`: which settings hold, where each comes from, and what is wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentflow.cli.output import JsonFlag, command, did_you_mean, emit, examples, note, say, table

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from agentflow.configuration import Problem, Resolution


def register(app: typer.Typer) -> None:
    """Add the commands."""
    config = typer.Typer(help="Which settings hold, and where each comes from.", rich_markup_mode=None)
    config.callback(invoke_without_command=True, epilog=examples("agentflow config", "agentflow config --json"))(_all)
    config.command(
        "show", epilog=examples("agentflow config show --origin", "agentflow config show --service executor --json")
    )(show)
    config.command("check", epilog=examples("agentflow config check", "agentflow config check --json"))(check)
    config.command("init", epilog=examples("agentflow config init", "agentflow config init --path /etc/mesh.toml"))(
        init
    )
    app.add_typer(config, name="config")


def _all(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Which settings hold, and where each comes from."""
    if context.invoked_subcommand is None:
        show(origin=True, as_json=as_json)


Service = Annotated[
    str,
    typer.Option(
        "--service", "-s", metavar="NAME", help="planner, runtime, executor, detector or streams.", show_default=False
    ),
]


@command
def show(
    service: Service = "",
    origin: Annotated[bool, typer.Option("--origin", "-o", help="Say where each value comes from.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the settings that hold here.

    Those every process takes, or those of one service. Of secrets only whether they are set.
    """
    shown = {"service": service or None, "settings": _settings(service), "variables": _variables()}
    told = _warnings(likely=True)
    emit({**shown, "warnings": told}, as_json=as_json, render=lambda found: _print(found, origin=origin))
    if not as_json:
        for warning in told:
            note(f"warning: {warning['where']}: {warning['message']}")


def _settings(service: str) -> list[dict[str, Any]]:
    """Every setting of a service and of the platform; raises `ConfigError` with all that is wrong."""
    from agentflow.configuration.platform import PlatformSettings
    from agentflow.configuration.resolving import resolve
    from agentflow.settings import load

    model = _model(service)
    load(model, section=service or None)
    return [
        *_rows(resolve(model, section=service or None), used=True),
        *_rows(resolve(PlatformSettings, section=""), used=False),
    ]


def _rows(resolution: "Resolution[Any]", *, used: bool) -> list[dict[str, Any]]:
    from agentflow.configuration.showing import shown

    assert resolution.settings is not None
    found = []
    for name, info in type(resolution.settings).model_fields.items():
        origin = resolution.origins.get(name)
        found.append(
            {
                "name": name,
                "variable": f"AF_{name.upper()}",
                "value": shown(getattr(resolution.settings, name)),
                "origin": origin.layer if origin else "default",
                "where": origin.where if origin else "",
                "description": info.description or "",
                **({} if used else {"note": "not used by this version"}),
            }
        )
    return found


def _variables() -> list[dict[str, Any]]:
    """Variables of other programs that are honoured: presence only where it is a secret."""
    import os

    from agentflow.configuration.platform import SECRET_VARIABLES, SHARED_VARIABLES
    from agentflow.masking import mask_url

    return [
        {
            "name": name,
            "set": bool(os.environ.get(name)),
            "value": None if name in SECRET_VARIABLES else mask_url(os.environ.get(name, "")) or None,
            "description": description,
        }
        for name, description in SHARED_VARIABLES.items()
    ]


def _model(service: str) -> "type[BaseSettings]":
    from agentflow.configuration.layers import SECTIONS
    from agentflow.configuration.resolving import common_settings, settings_of
    from agentflow.errors import InputError

    if not service:
        return common_settings()
    if service not in SECTIONS:
        hint = did_you_mean(service, SECTIONS)
        raise InputError(f"there is no service {service!r}", code="config.unknown_service", hint=hint)
    if (model := settings_of(service)) is None:
        raise InputError(f"agentflow-{service} is not installed here", code="service.not_installed", service=service)
    return model


def _print(shown: dict[str, Any], *, origin: bool) -> None:
    rows = [
        (
            each["name"],
            "" if each["value"] is None else each["value"],
            *(((each["where"] or "default"),) if origin else ()),
            each.get("note", ""),
        )
        for each in shown["settings"]
    ]
    table(("setting", "value", *(("from",) if origin else ()), "note"), rows)
    say()
    values = [(each["name"], each["value"] or ("set" if each["set"] else "")) for each in shown["variables"]]
    table(("variable", "value"), values)


@command
def check(as_json: JsonFlag = False) -> None:
    """Check the settings of every service that is installed here.

    Everything that is wrong at once: where it stands, what was found, what is allowed. Ends with 2 when anything is.
    """
    problems, told = _problems(), _warnings(likely=False)
    report = {"ok": not problems, "problems": problems, "warnings": told}
    emit(report, as_json=as_json, render=_print_check)
    if problems:
        raise typer.Exit(2)


def _problems() -> list[dict[str, Any]]:
    from agentflow.configuration.layers import SECTIONS
    from agentflow.configuration.resolving import check as check_files
    from agentflow.configuration.resolving import common_settings, resolve, settings_of

    found = [*resolve(common_settings(), section="").problems]
    for section in SECTIONS:
        if (model := settings_of(section)) is not None:
            found += resolve(model, section=section).problems
    return [_told(each) for each in dict.fromkeys([*found, *check_files()])]


def _warnings(*, likely: bool) -> list[dict[str, Any]]:
    from agentflow.configuration.resolving import warnings

    return [_told(each) for each in warnings(likely=likely)]


def _told(problem: "Problem") -> dict[str, Any]:
    return {
        "where": problem.where,
        "found": problem.found,
        "allowed": problem.allowed,
        "code": problem.code,
        "message": str(problem).removeprefix(f"{problem.where}: "),
    }


def _print_check(report: dict[str, Any]) -> None:
    for each in report["problems"]:
        say(f"error    {each['where']}: {each['message']}")
    for each in report["warnings"]:
        say(f"warning  {each['where']}: {each['message']}")
    if report["ok"]:
        say("the settings are usable")


@command
def init(
    path: Annotated[Path, typer.Option("--path", help="The file to write.")] = Path("agentflow.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a file with every setting, commented out, at its default."""
    from agentflow.configuration.catalogue import as_toml
    from agentflow.errors import ConfigError, Conflict

    if path.exists() and not force:
        raise Conflict(f"{path} is there already", code="config.exists", hint="--force overwrites it")
    try:
        path.write_text(as_toml(), "utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", code="config.unwritable", path=str(path)) from error
    emit({"path": str(path)}, as_json=as_json, render=lambda _: say(f"{path} is written; nothing in it is set yet"))
