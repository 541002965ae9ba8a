"""Plain bodies: strict JSON, three forms, and refusals that name what was found and what is allowed."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import InputError
from agentflow.payloads import CancelRequested, GoalSubmitted, RunSignalled
from agentflow_planner.adoption import CODES, MAX_PLAIN, read_plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def refusal(body: bytes) -> InputError:
    """What a body is refused with."""
    with pytest.raises(InputError) as caught:
        read_plain(body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b'{"goal":"support"}', GoalSubmitted("support")),
        (b' {"input": {"n": 1}, "goal": "support@1.0.0"}\n', GoalSubmitted("support@1.0.0", {"n": 1})),
        (b'{"signal":"approved"}', RunSignalled("approved")),
        (b'{"signal":"approved","data":{"by":"Ann"}}', RunSignalled("approved", {"by": "Ann"})),
        (b'{"cancel":"enough"}', CancelRequested("enough")),
        (b'{"cancel":true}', CancelRequested("")),
    ],
)
def test_the_three_forms_are_taken(body: bytes, payload: Any) -> None:
    """Whatever the order of members and the space between them."""
    assert payload == read_plain(body).payload


@pytest.mark.parametrize(
    ("body", "code", "found"),
    [
        (b"", "plain.empty", "nothing"),
        (b"  \n", "plain.empty", "nothing"),
        (b'{"goal":', "plain.malformed", '{"goal":'),
        (b"\xff\xfe", "plain.malformed", "\ufffd\ufffd"),
        (b'\xef\xbb\xbf{"goal":"x"}', "plain.malformed", '\ufeff{"goal":"x"}'),
        (b'{"goal":"x"} {}', "plain.malformed", '{"goal":"x"} {}'),
        (b'{"goal":"x","input":{"n":NaN}}', "plain.malformed", '{"goal":"x","input":{"n":NaN}}'),
        (b'{"goal":"x","input":{"n":-Infinity}}', "plain.malformed", '{"goal":"x","input":{"n":-Infinity}}'),
        (b'{"goal":"x","goal":"y"}', "plain.duplicate_key", "goal"),
        (b'{"goal":"x","input":{"a":1,"a":1}}', "plain.duplicate_key", "a"),
        (b"null", "plain.unknown_form", "null"),
        (b"[1]", "plain.unknown_form", "a list"),
        (b'"goal"', "plain.unknown_form", "goal"),
        (b"7", "plain.unknown_form", "7"),
        (b"{}", "plain.unknown_form", "{}"),
        (b'{"gaol":"x"}', "plain.unknown_form", "gaol"),
        (b'{"goal":"x","cancel":"y"}', "plain.ambiguous", "goal, cancel"),
        (b'{"goal":"x","inputs":{}}', "plain.unknown_member", "inputs"),
        (b'{"goal":3}', "plain.wrong_type", "3"),
        (b'{"goal":""}', "plain.wrong_type", ""),
        (b'{"goal":"x","input":[]}', "plain.wrong_type", "a list"),
        (b'{"goal":"x","input":null}', "plain.wrong_type", "null"),
        (b'{"signal":"x","data":"y"}', "plain.wrong_type", "y"),
        (b'{"cancel":false}', "plain.wrong_type", "false"),
        (b'{"goal":"x","input":{"n":1e400}}', "value.not_json", "input"),
        (b'{"goal":"x","input":{"n":18446744073709551616}}', "value.not_json", "input"),
        (b'{"goal":"x","input":{"t":"\\ud800"}}', "value.not_json", "input"),
        (b'{"goal":"x","input":{"\\ud800":1}}', "value.key", "input"),
        (b'{"goal":"x","input":{"d":' + b"[" * 70 + b"]" * 70 + b"}}", "value.too_deep", "input"),
    ],
)
def test_anything_else_is_refused_with_a_code_and_what_was_found(body: bytes, code: str, found: str) -> None:
    """And says what is allowed; the codes are the documented ones."""
    error = refusal(body)
    assert (code, found) == (error.error_code, error.fields["found"])
    assert error.fields["allowed"]
    assert code in CODES


def test_bodies_that_are_only_there_to_hurt_are_refused_as_well() -> None:
    """Endless nesting, numbers of a hundred thousand digits, and more bytes than a person sends."""
    assert "plain.malformed" == refusal(b"[" * 100_000).error_code
    assert "plain.malformed" == refusal(b'{"goal":"x","input":' + b'{"a":' * 40_000).error_code
    assert "plain.malformed" == refusal(b'{"goal":"x","input":{"n":' + b"9" * 100_000 + b"}}").error_code
    assert "plain.too_large" == refusal(b" " * (MAX_PLAIN + 1)).error_code
    assert "plain.wrong_type" == refusal(b'{"goal":' + b"9" * 4000 + b"}").error_code


def test_a_near_miss_is_answered_with_what_was_probably_meant() -> None:
    """For the form and for its members."""
    assert "did you mean 'goal'?" in refusal(b'{"gaol":"x"}').message
    assert "did you mean 'input'?" in refusal(b'{"goal":"x","inputs":{}}').message


def test_a_refusal_can_always_be_recorded() -> None:
    """What a stranger chose is cut, and text that is no Unicode is escaped."""
    for body in (b'{"\\ud800":1}', b'{"goal":"x","\\ud800":1}', b'{"signal":"' + b"x" * 5000 + b'","data":1}'):
        error = refusal(body)
        error.message.encode()
        shown = str(error.fields["found"])
        shown.encode()
        assert len(shown) <= 200


@given(JSON)
def test_every_json_value_is_taken_as_it_is_or_refused_with_a_known_code(value: Any) -> None:
    """Nothing else is raised, whatever a stranger sends as input."""
    code = ""
    try:
        adopted = read_plain(json.dumps({"goal": "x", "input": value}).encode())
    except InputError as error:
        code = error.error_code
    else:
        assert GoalSubmitted("x", value) == adopted.payload
    assert code in {"", *CODES}


@given(st.binary(max_size=60))
def test_every_body_is_read_or_refused(body: bytes) -> None:
    """Any bytes at all."""
    code = ""
    try:
        read_plain(body)
    except InputError as error:
        code = error.error_code
    assert code in {"", *CODES}


def test_a_duplicate_key_among_very_many_is_found_in_one_pass() -> None:
    """Looking for it must not hold up the planner: compared each with each it would take many seconds."""
    keys = [f'"k{number}":1' for number in range(20_000)]
    body = ('{"goal":"x","input":{' + ",".join([*keys, '"k19999":2']) + "}}").encode()
    assert len(body) <= MAX_PLAIN
    began = time.process_time()

    with pytest.raises(InputError) as refused:
        read_plain(body)

    assert "plain.duplicate_key" == refused.value.error_code
    assert time.process_time() - began < 2
