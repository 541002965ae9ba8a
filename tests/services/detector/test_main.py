"""The detector's command line, settings, and its life as a process on a mesh in memory."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from opentelemetry import metrics as telemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentflow import logs
from agentflow.clock import SystemClock
from agentflow.errors import ConfigError, MeshError
from agentflow.mesh.memory import MemoryTransport
from agentflow.registry import REGISTRY, Heartbeat
from agentflow.service import Host, Incarnation
from agentflow.settings import load
from agentflow.testing import memory_mesh
from agentflow_detector.__main__ import main, work
from agentflow_detector.saving import Snapshots
from agentflow_detector.settings import DetectorSettings
from tests.services.detector.histories import anomalies, rapid, record, ruleset, watch
from tests.support.waiting import eventually

RULES = ruleset(rapid())


def host(mesh: MemoryTransport, **given: Any) -> Host:
    """What a process's body gets."""
    settings = DetectorSettings(**{"ack_wait": 0.3, "heartbeat": 0.5, "drain_timeout": 2.0, **given})
    incarnation = Incarnation("agentflow-detector", "01ARZ3NDEKTSV4RRFFQ69G5FAV", SystemClock().now())
    return Host(mesh, incarnation, settings, SystemClock(), logs.get("test"))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("flag", ("flag",)),
        ("flag, auto_block", ("flag", "auto_block")),
        ("escalate,auto_block,flag", ("escalate", "auto_block", "flag")),
    ],
)
def test_the_action_variable_takes_words_by_comma(
    monkeypatch: pytest.MonkeyPatch, given: str, read: tuple[str, ...]
) -> None:
    """AF_SECURITY_ANOMALY_ACTION, as an operator writes it."""
    monkeypatch.setenv("AF_SECURITY_ANOMALY_ACTION", given)

    assert read == load(DetectorSettings).security_anomaly_action


@pytest.mark.parametrize("given", [",", "block", "flag,,auto_block", "flag;escalate"])
def test_a_word_there_is_not_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """An operator who mistypes must not end up with less than was asked for."""
    monkeypatch.setenv("AF_SECURITY_ANOMALY_ACTION", given)
    with pytest.raises(ConfigError, match=r"AF_SECURITY_ANOMALY_ACTION.*allowed are flag, auto_block, escalate"):
        load(DetectorSettings)


def test_without_a_word_everything_is_done() -> None:
    """Blocking is the default."""
    assert ("flag", "auto_block", "escalate") == load(DetectorSettings).security_anomaly_action


def test_rules_can_be_checked_without_a_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good ones end with 0 and their digest, bad ones with 2, the file and the place."""
    (tmp_path / "good.yaml").write_text(yaml.safe_dump({"version": "9", "rules": [rapid()]}))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"version": "9", "rules": [rapid(threshold=0)]}))

    assert 0 == main(["--check"])
    assert 0 == main(["--rules", str(tmp_path / "good.yaml"), "--check"])
    out = capsys.readouterr().out.splitlines()
    assert "version 9" in out[1]
    assert 2 == main(["--rules", str(tmp_path / "bad.yaml"), "--check"])
    err = capsys.readouterr().err
    assert "error[rules.invalid]" in err
    assert "bad.yaml" in err
    assert "$.rules[0].threshold" in err


async def test_a_running_detector_says_which_rules_are_in_force_and_finds_what_comes() -> None:
    """Its heartbeat has number, version, digest and actions; stopped, it leaves a snapshot of all it folded."""
    async with memory_mesh() as mesh:
        process = host(mesh)
        task = asyncio.create_task(work(process, _settings(process), RULES))
        registry = await mesh.bucket(REGISTRY)
        [entry] = await eventually(lambda: registry.entries("detector."), "it registers", within=30)
        detail = msgspec.json.decode(entry.value, type=Heartbeat).detail
        assert (1, "test", RULES.digest) == (detail["rules"], detail["rules_version"], detail["rules_sha256"])
        assert ["flag", "auto_block", "escalate"] == detail["actions"]

        for number in range(3):
            await record(mesh, number)
        await eventually(lambda: anomalies(mesh), "the anomaly is stored", within=30)
        process.stop.set()
        await task

        later = await watch(mesh, RULES)
        assert later._saved > 0
        assert 1 == len(await anomalies(mesh))


async def test_a_detector_that_starts_late_finds_what_was_recorded_before() -> None:
    """From the beginning of what the stream keeps."""
    async with memory_mesh() as mesh:
        for number in range(3):
            await record(mesh, number)
        process = host(mesh)
        task = asyncio.create_task(work(process, _settings(process), RULES))
        await eventually(lambda: anomalies(mesh), "the anomaly is stored", within=30)
        process.stop.set()
        await task


async def test_watching_goes_on_where_no_snapshot_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots only make a start faster."""

    async def full(*_: object) -> bool:
        raise MeshError("no room")

    monkeypatch.setattr(Snapshots, "save", full)
    async with memory_mesh() as mesh:
        for number in range(3):
            await record(mesh, number)

        await watch(mesh, RULES, pace=(1, 0.0))

        assert 1 == len(await anomalies(mesh))


async def test_what_is_stored_for_the_first_time_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings by tenant, agent and tool, blocks by tenant and tool, and how long it took; a restart counts nothing."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(telemetry, "get_meter", provider.get_meter)
    async with memory_mesh() as mesh:
        for number in range(3):
            await record(mesh, number)
        await watch(mesh, RULES)
        await watch(mesh, RULES)

    found = {
        metric.name: [
            (dict(point.attributes or {}), getattr(point, "value", None)) for point in metric.data.data_points
        ]
        for resource in _data(reader).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert [({"tenant": "acme", "agent": "clerk", "tool": "lookup"}, 1)] == found["tool_anomalies_total"]
    assert [({"tenant": "acme", "tool": "lookup"}, 1)] == found["tools_auto_blocked_total"]
    assert [({}, None)] == found["tool_anomaly_detection_seconds"]
    provider.shutdown()


def _data(reader: InMemoryMetricReader) -> Any:
    return reader.get_metrics_data()


def _settings(process: Host) -> DetectorSettings:
    assert isinstance(process.settings, DetectorSettings)
    return process.settings
