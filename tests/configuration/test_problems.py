"""What is wrong is told all at once: where, what was found, what is allowed, and a code."""

from pathlib import Path

import pytest

from agentflow.configuration.problems import Problem
from agentflow.configuration.resolving import check, resolve, section_of, settings_of, warnings
from agentflow.configuration.showing import found as what_was_found
from agentflow.errors import ConfigError
from agentflow.masking import mask_url
from agentflow.settings import MeshSettings, ServiceSettings, load
from tests.configuration.places import around, write

SECRET = "hunter2-secret"


def told(problems: list[Problem] | tuple[Problem, ...]) -> list[tuple[str, str]]:
    """Where and which, without the folder."""
    return [(Path(each.where).name, each.code) for each in problems]


def test_an_unknown_key_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    """With its line: a file is written by hand, and a typo must not become a default."""
    write(tmp_path, "agentflow.toml", 'nats_ulr = "nats://x:1"\n\n[planner]\nconcurency = 3\n')

    problems = check(around(tmp_path))

    assert [("agentflow.toml:1", "config.unknown_key"), ("agentflow.toml:4", "config.unknown_key")] == told(problems)
    assert ["did you mean nats_url?", "did you mean concurrency?"] == [each.allowed for each in problems]


def test_a_key_in_the_wrong_table_is_told_where_it_belongs(tmp_path: Path) -> None:
    """What only one service takes has its place in that service's table."""
    write(tmp_path, "pyproject.toml", "[tool.agentflow]\ncel_engine = 'cpp'\n")

    (problem,) = check(around(tmp_path))
    assert ("it belongs into [planner]", "pyproject.toml:2") == (problem.allowed, Path(problem.where).name)


def test_a_table_of_a_service_that_is_not_installed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file may serve every container of a deployment."""
    write(tmp_path, "agentflow.toml", "[executor]\nwhatever = 1\n")
    monkeypatch.setattr("agentflow.configuration.resolving.settings_of", lambda _: None)

    assert [] == check(around(tmp_path))


def test_an_unknown_variable_is_a_warning(tmp_path: Path) -> None:
    """Other programs may use the prefix; where it is like one of ours, that is said."""
    here = around(tmp_path, AF_NATS_ULR="nats://x:1", AF_CABIN="7", AF_DEBUG="1", AF_CEL_ENGINE="auto")

    everything, likely = warnings(here), warnings(here, likely=True)

    assert [("AF_CABIN", "no setting has this name"), ("AF_NATS_ULR", "did you mean AF_NATS_URL?")] == [
        (each.where, each.allowed) for each in everything
    ]
    assert ["AF_NATS_ULR"] == [each.where for each in likely]


def test_a_setting_nothing_reads_is_a_warning(tmp_path: Path) -> None:
    """Taken, checked, and said to have no effect."""
    write(tmp_path, "agentflow.toml", 'residency_policy = "strict"\n')

    found = warnings(around(tmp_path, AF_MODE="control"))

    assert [("AF_MODE", "config.not_used"), ("agentflow.toml:1", "config.not_used")] == sorted(told(found))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("AF_MODE", "data", "both"),
        ("AF_DB_DSN", "postgresql://me:pw@db/mesh", "mysql://db"),
        ("AF_VECTOR_BACKEND", "qdrant", "faiss"),
        ("AF_QDRANT_URL", "http://q:6333", "q:6333"),
        ("AF_MODEL_BACKENDS", "openai, vllm", "openai,bard"),
        ("AF_RESIDENCY_POLICY", "off", "maybe"),
    ],
)
def test_settings_of_the_platform_are_checked_everywhere(
    name: str, good: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every process, though none uses them yet."""
    monkeypatch.setenv(name, good)
    load(MeshSettings)

    monkeypatch.setenv(name, bad)
    with pytest.raises(ConfigError, match=f"{name}: "):
        load(MeshSettings)


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "\udcff"])
def test_a_file_that_cannot_be_read_is_an_error(text: str, tmp_path: Path) -> None:
    """Not a file that is not there."""
    (tmp_path / "agentflow.toml").write_bytes(text.encode("utf-8", "surrogateescape"))

    found = resolve(ServiceSettings, {}, around(tmp_path))

    assert found.settings is None
    assert [("agentflow.toml", "config.unreadable")] == told(found.problems)


def test_a_wrong_value_in_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    """Beside those of variables and flags, in one go."""
    write(tmp_path, "agentflow.toml", 'ack_wait = "soon"\n')
    write(tmp_path, ".env", "\nAF_HEARTBEAT=-1\n")

    found = resolve(ServiceSettings, {"replicas": 12}, around(tmp_path, AF_LOG_LEVEL="loud"))

    places = {"agentflow.toml:1", ".env:2", "--replicas", "AF_LOG_LEVEL"}
    assert places == {Path(each.where).name for each in found.problems}
    assert all(each.found and each.allowed for each in found.problems)


def test_a_problem_is_one_line() -> None:
    """Where: found what; what is allowed, and the code."""
    assert "AF_X: found '1'; use 2 [config.invalid]" == str(Problem("AF_X", "'1'", "use 2", "config.invalid"))
    assert "file: cannot be read [config.unreadable]" == str(Problem("file", "", "cannot be read", "config.unreadable"))


def test_what_was_found_is_cut_and_masked() -> None:
    """Somebody may have put a novel, or an address with a password, where a number belongs."""
    assert len(what_was_found("x" * 1000, secret=False)) < 100
    assert SECRET not in what_was_found(SECRET, secret=True)
    assert "'nats://***@h:1,nats://***@i:2'" == what_was_found(
        f"nats://a:{SECRET}@h:1,nats://{SECRET}@i:2", secret=False
    )


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nats://h:4222", "nats://h:4222"),
        ("nats://me:pw@h:4222", "nats://***@h:4222"),
        ("nats://token@a,nats://me:p@ss@b", "nats://***@a,nats://***@b"),
        ("http://h/path?user=a@b", "http://h/path?user=a@b"),
        ("no url: me@example.org", "no url: me@example.org"),
    ],
)
def test_the_user_of_an_address_is_masked(text: str, masked: str) -> None:
    """And nothing else of it."""
    assert masked == mask_url(text)


def test_a_settings_class_belongs_to_its_distribution() -> None:
    """That is how a table of a file finds its reader, and the other way round."""
    for name in ("planner", "runtime", "executor", "streams"):
        model = settings_of(name)
        assert model is not None
        assert name == section_of(model)
    assert "" == section_of(ServiceSettings)
    assert settings_of("conductor") is None
