"""Values on the command line."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cli.arguments import json_object
from agentflow.errors import InputError

plain_objects = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=4
)


@given(plain_objects)
def test_an_object_is_taken_as_it_is(value: dict[str, object]) -> None:
    """Whatever JSON says."""
    assert value == json_object(json.dumps(value), "--input")


def test_an_object_is_read_from_a_file_or_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`@FILE` and `-`."""
    (tmp_path / "input.json").write_text('{"name": "Zoë"}', "utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"name": "Ada"}'))

    assert {"name": "Zoë"} == json_object(f"@{tmp_path / 'input.json'}", "--input")
    assert {"name": "Ada"} == json_object("-", "--input")


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ("{", "argument.not_json", "--input is not JSON"),
        ("name=Ada", "argument.not_json", "--input is not JSON"),
        ("", "argument.not_json", "--input is not JSON"),
        ("[" * 100_000, "argument.not_json", "--input is not JSON"),
        ("[1]", "argument.not_object", "--input is an array"),
        ('"x"', "argument.not_object", "--input is text"),
        ("true", "argument.not_object", "--input is a truth value"),
        ("1.5", "argument.not_object", "--input is a number"),
        ("null", "argument.not_object", "--input is null"),
        ("@/nowhere/x.json", "argument.unreadable", "No such file"),
        ("@/", "argument.unreadable", "directory"),
    ],
)
def test_anything_else_is_refused_with_where_and_what(given: str, code: str, message: str) -> None:
    """The option or the file, what was found, and what is allowed."""
    with pytest.raises(InputError, match=message) as caught:
        json_object(given, "--input")
    assert (code, 2) == (caught.value.error_code, caught.value.exit_code)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8."""
    (tmp_path / "input.json").write_bytes(b"\xff\xfe")

    with pytest.raises(InputError) as caught:
        json_object(f"@{tmp_path / 'input.json'}", "--data")
    assert "argument.unreadable" == caught.value.error_code
