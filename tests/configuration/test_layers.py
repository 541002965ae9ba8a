"""Layers: which is stronger, what a file may say to whom, and where a value says it came from."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.configuration.layers import line_of
from agentflow.configuration.resolving import resolve
from agentflow.settings import DEFAULT_NATS_URL, MeshSettings, ServiceSettings
from tests.configuration.places import USER_FILE, around, write

LAYERS = ("flag", "environment", ".env", "agentflow.toml", "pyproject.toml", "config.toml", "default")
"""The strongest first."""


def value_of(layer: str) -> float:
    """What a layer says of `ack_wait`; of the default what it is."""
    return 1.0 if layer == "default" else 2.0 + LAYERS.index(layer)


def fill(folder: Path, present: set[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Let every layer in `present` speak; returns flags and variables."""
    value = {layer: value_of(layer) for layer in present}
    if ".env" in present:
        write(folder, ".env", f"AF_ACK_WAIT={value['.env']}\n")
    if "agentflow.toml" in present:
        write(folder, "agentflow.toml", f"ack_wait = {value['agentflow.toml']}\n")
    if "pyproject.toml" in present:
        write(folder, "pyproject.toml", f"[tool.agentflow]\nack_wait = {value['pyproject.toml']}\n")
    if "config.toml" in present:
        write(folder, USER_FILE, f"ack_wait = {value['config.toml']}\n")
    flags = {"ack_wait": value["flag"]} if "flag" in present else {}
    variables = {"AF_ACK_WAIT": str(value["environment"])} if "environment" in present else {}
    return flags, variables


@given(present=st.sets(st.sampled_from(LAYERS[:-1])))
def test_the_strongest_layer_that_speaks_is_heard(present: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the others say, in every combination; and its name is told."""
    folder = tmp_path_factory.mktemp("layers")
    flags, variables = fill(folder, present)
    strongest = next((layer for layer in LAYERS if layer in present), "default")

    found = resolve(ServiceSettings, flags, around(folder, **variables))

    assert found.settings is not None
    assert value_of(strongest) == found.settings.ack_wait
    origin = found.origins.get("ack_wait")
    assert strongest == (origin.layer if origin else "default")


def test_layers_complete_each_other(tmp_path: Path) -> None:
    """Each setting comes from the strongest that names it, not all from one."""
    write(tmp_path, "agentflow.toml", 'log_level = "debug"\nreplicas = 3\n')
    write(tmp_path, USER_FILE, 'log_level = "error"\nheartbeat = 5\n')

    found = resolve(ServiceSettings, {"replicas": 1}, around(tmp_path)).settings

    assert found is not None
    assert ("debug", 1, 5.0) == (found.log_level, found.replicas, found.heartbeat)


def test_a_place_is_told_with_its_line(tmp_path: Path) -> None:
    """Of a file; of a variable its name, of a flag itself."""
    file = write(tmp_path, "agentflow.toml", "# first\n\nreplicas = 3\n[executor]\nconcurrency = 2\n")
    dotenv = write(tmp_path, ".env", "A=1\nexport AF_HEARTBEAT=3\n")
    origins = resolve(
        ServiceSettings, {"drain_timeout": 4}, around(tmp_path, AF_ACK_WAIT="2"), section="executor"
    ).origins

    assert {
        "replicas": f"{file}:3",
        "heartbeat": f"{dotenv}:2",
        "ack_wait": "AF_ACK_WAIT",
        "drain_timeout": "--drain-timeout",
    } == {name: value.where for name, value in origins.items()}


@pytest.mark.parametrize(
    ("table", "key", "line"),
    [("", "a", 1), ("", "b", 0), ("tool.agentflow", "a", 4), ("tool.agentflow", "b", 5), ("x", "c", 8), ("", "x", 7)],
)
def test_lines_are_found_in_their_table(table: str, key: str, line: int) -> None:
    """The same key may stand in several; what is not found is line 0."""
    text = 'a = 1\n\n[tool.agentflow]\n"a" = 2\nb = 3\n\n[ x ]\nc=4\n'

    assert line == line_of(text, table, key)


def test_a_service_has_a_table_of_its_own(tmp_path: Path) -> None:
    """It is stronger than the top of the same file, not than a stronger file, and binds nobody else."""
    write(tmp_path, "agentflow.toml", "heartbeat = 3\n[planner]\nack_wait = 5\nheartbeat = 4\n")
    write(tmp_path, USER_FILE, "[planner]\nheartbeat = 9\nreplicas = 2\n")

    planner = resolve(ServiceSettings, {}, around(tmp_path), section="planner").settings
    other = resolve(ServiceSettings, {}, around(tmp_path), section="executor").settings

    assert planner is not None
    assert other is not None
    assert (5.0, 4.0, 2) == (planner.ack_wait, planner.heartbeat, planner.replicas)
    assert (1.0, 3.0, 1) == (other.ack_wait, other.heartbeat, other.replicas)


def test_a_path_in_a_file_is_meant_from_where_the_file_is(tmp_path: Path) -> None:
    """Wherever the process was started; in a variable it is what it says."""
    write(tmp_path, USER_FILE, 'project = "mesh.yaml"\n')

    found = resolve(ServiceSettings, {}, around(tmp_path)).settings
    named = resolve(ServiceSettings, {}, around(tmp_path, AF_PROJECT="mesh.yaml")).settings

    assert found is not None
    assert named is not None
    assert tmp_path / "home/.config/agentflow/mesh.yaml" == found.project
    assert Path("mesh.yaml") == named.project


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    """As after `AF_NATS_URL= agentflow …`; the layer below is heard."""
    write(tmp_path, "agentflow.toml", 'nats_url = "nats://file:1"\n')

    found = resolve(MeshSettings, {}, around(tmp_path, AF_NATS_URL="", NATS_URL="")).settings

    assert found is not None
    assert "nats://file:1" == found.nats_url


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"AF_NATS_URL": "nats://af:1", "NATS_URL": "nats://nats:1", "NATS_CONTEXT": "office"}, "nats://af:1"),
        ({"NATS_URL": "nats://nats:1", "NATS_CONTEXT": "office"}, "nats://nats:1"),
        ({"NATS_CONTEXT": "office"}, "nats://office:1"),
        ({"AF_NATS_URL": "nats://af:1", "NATS_CONTEXT": "nowhere"}, "nats://af:1"),
        ({}, "nats://file:1"),
    ],
)
def test_what_other_nats_tools_have_set_counts_below_ours(
    environment: dict[str, str], expected: str, tmp_path: Path
) -> None:
    """And above files; a context nobody asks for need not exist."""
    write(tmp_path, "agentflow.toml", 'nats_url = "nats://file:1"\n')
    write(tmp_path, "home/.config/nats/context/office.json", '{"url": "nats://office:1"}')

    found = resolve(MeshSettings, {}, around(tmp_path, **environment))

    assert found.settings is not None
    assert expected == found.settings.nats_url


def test_a_context_given_by_flag_is_stronger_than_any_variable(tmp_path: Path) -> None:
    """But not than the address itself."""
    write(tmp_path, "home/.config/nats/context/office.json", '{"url": "nats://office:1"}')
    asked = around(tmp_path, "office", AF_NATS_URL="nats://af:1")

    by_context = resolve(MeshSettings, {}, asked)
    by_flag = resolve(MeshSettings, {"nats_url": "nats://flag:1"}, asked)

    assert by_context.settings is not None
    assert by_flag.settings is not None
    assert ("nats://office:1", "--context") == (by_context.settings.nats_url, by_context.origins["nats_url"].where)
    assert "nats://flag:1" == by_flag.settings.nats_url


def test_without_any_layer_there_are_defaults(tmp_path: Path) -> None:
    """And nothing is wrong."""
    found = resolve(MeshSettings, {}, around(tmp_path))

    assert found.settings is not None
    assert (DEFAULT_NATS_URL, {}, ()) == (found.settings.nats_url, found.origins, found.problems)
