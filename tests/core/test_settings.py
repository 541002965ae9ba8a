"""Settings: read once, typed, frozen; everything that is wrong is told at once, and no value is."""

from pathlib import Path
from typing import Any

import pydantic
import pytest

from agentflow.errors import ConfigError
from agentflow.settings import DEFAULT_NATS_URL, MeshSettings, ServiceSettings, load

SECRET = "hunter2-secret"


class Elaborate(ServiceSettings):
    """Settings of a service that takes a list."""

    hosts: list[str] = pydantic.Field(default_factory=list)


def test_every_setting_has_a_default() -> None:
    """A service starts against a broker on this machine without any."""
    settings = load(ServiceSettings)

    assert (DEFAULT_NATS_URL, None, "info", 1.0, 8) == (
        settings.nats_url,
        settings.project,
        settings.log_level,
        settings.ack_wait,
        settings.max_deliveries,
    )
    assert not settings.allow_volatile


def test_variables_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their documented names, each as its type."""
    values = {
        "AF_NATS_URL": "nats://broker:4222,nats://other:4222",
        "AF_MONITOR_URL": "http://broker:8222",
        "AF_CONNECT_TIMEOUT": "2.5",
        "AF_REPLICAS": "3",
        "AF_PROJECT": "/srv/mesh.yaml",
        "AF_LOG_LEVEL": "debug",
        "AF_ACK_WAIT": "0.5",
        "AF_MAX_DELIVERIES": "3",
        "AF_HEARTBEAT": "1",
        "AF_DRAIN_TIMEOUT": "30",
        "AF_ALLOW_VOLATILE": "true",
        "AF_CRASH_AT": "executor.after_intent:2",
        "AF_HTTP_ADDRESS": "0.0.0.0:9464",
        "AF_TRACES": "otlp",
        "AF_CLOCK_OFFSET": "1.5",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    settings = load(ServiceSettings)

    assert {name.removeprefix("AF_").lower() for name in values} == set(ServiceSettings.model_fields)
    assert ("nats://broker:4222,nats://other:4222", "http://broker:8222") == (settings.nats_url, settings.monitor_url)
    assert (2.5, 3, Path("/srv/mesh.yaml")) == (settings.connect_timeout, settings.replicas, settings.project)
    assert ("debug", 0.5, 3, 1.0) == (
        settings.log_level,
        settings.ack_wait,
        settings.max_deliveries,
        settings.heartbeat,
    )
    assert (30.0, True, "executor.after_intent:2") == (
        settings.drain_timeout,
        settings.allow_volatile,
        settings.crash_at,
    )


def test_flags_win_over_variables_unless_they_were_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """None means that a flag was left out, so the variable counts."""
    monkeypatch.setenv("AF_NATS_URL", "nats://variable:4222")
    monkeypatch.setenv("AF_REPLICAS", "3")

    settings = load(ServiceSettings, nats_url="nats://flag:4222", replicas=None)

    assert ("nats://flag:4222", 3) == (settings.nats_url, settings.replicas)


def test_variables_of_others_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process does not take is left to the process that does."""
    monkeypatch.setenv("AF_SANDBOX", "process")
    monkeypatch.setenv("NATS_CREDS", "/somewhere")

    assert DEFAULT_NATS_URL == load(MeshSettings).nats_url


def test_everything_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error names every variable, what was found and what is allowed, so that one correction is enough."""
    wrong = ("REPLICAS", "LOG_LEVEL", "ACK_WAIT", "MAX_DELIVERIES", "ALLOW_VOLATILE", "CRASH_AT", "HEARTBEAT")
    for name in wrong:
        monkeypatch.setenv(f"AF_{name}", "much")

    with pytest.raises(ConfigError) as refused:
        load(ServiceSettings)

    error = refused.value
    problems = error.fields["problems"]
    assert isinstance(problems, list)
    assert {f"AF_{name}" for name in wrong} == {problem.partition(":")[0] for problem in problems}
    assert all("found 'much'; " in problem for problem in problems)
    assert all(problem in str(error) for problem in problems)
    assert ("config.invalid", 2) == (error.error_code, error.exit_code)


def test_of_a_secret_that_is_wrong_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the message, not in the fields; and of an address not its user and password."""
    monkeypatch.setenv("AF_DB_DSN", SECRET)
    monkeypatch.setenv("AF_QDRANT_URL", f"ftp://me:{SECRET}@host")

    with pytest.raises(ConfigError) as refused:
        load(ServiceSettings)

    assert "AF_DB_DSN: " in str(refused.value)
    assert "AF_QDRANT_URL: found 'ftp://***@host'" in str(refused.value)
    assert SECRET not in str(refused.value) + repr(refused.value.fields)


def test_no_value_hides_behind_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback shows causes and contexts too; there are none."""
    monkeypatch.setenv("AF_REPLICAS", SECRET)

    with pytest.raises(ConfigError) as refused:
        load(ServiceSettings)

    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_a_value_that_should_be_json_is_told_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists and objects are written as JSON; what is none is a setting that is wrong, not a crash."""
    monkeypatch.setenv("AF_HOSTS", SECRET)

    with pytest.raises(ConfigError) as refused:
        load(Elaborate)

    assert "AF_HOSTS: " in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", 0),
        ("replicas", 6),
        ("connect_timeout", 0),
        ("ack_wait", 0.1),
        ("max_deliveries", 0),
        ("heartbeat", 0),
        ("drain_timeout", -1),
        ("log_level", "loud"),
        ("crash_at", "executor.after_lunch"),
        ("crash_at", "executor.after_intent:x"),
        ("crash_at", "executor.after_intent:0"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: Any) -> None:
    """Before anything is connected or started."""
    with pytest.raises(ConfigError) as refused:
        load(ServiceSettings, **{name: value})

    assert f"--{name.replace('_', '-')}: found " in str(refused.value)


def test_settings_cannot_be_changed() -> None:
    """They are read once and passed down."""
    settings = load(ServiceSettings)

    for name in ServiceSettings.model_fields:
        with pytest.raises(pydantic.ValidationError):
            setattr(settings, name, None)


def test_nothing_is_read_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the environment is seen by the next load, and only by it."""
    before = load(MeshSettings)
    monkeypatch.setenv("AF_REPLICAS", "5")

    assert (1, 5) == (before.replicas, load(MeshSettings).replicas)
