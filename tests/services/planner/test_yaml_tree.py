"""Reading YAML strictly: nothing is guessed, and nothing can be made large with little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_planner.yaml_tree import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    Document,
    Mapping,
    Mark,
    Scalar,
    Sequence,
    Trouble,
    Unreadable,
    place_in,
    plain_value,
    read_document,
)


def refused(source: bytes) -> Trouble:
    """Why a file cannot be read."""
    with pytest.raises(Unreadable) as caught:
        read_document(source)
    return caught.value.trouble


def troubles(source: bytes) -> list[Trouble]:
    """What is wrong with a file that can be read."""
    return read_document(source).troubles


def value_of(document: Document, key: str) -> Scalar:
    """The scalar of a key of the root."""
    assert isinstance(document.root, Mapping)
    found = document.root.get(key)
    assert isinstance(found, Scalar)
    return found


def test_a_tree_knows_where_everything_stands() -> None:
    """Lines and columns count from 1, in characters, also behind characters of several bytes."""
    document = read_document("a: 1\nüber:\n  - x\n  - 'é y': [z]\n".encode())
    root = document.root
    assert isinstance(root, Mapping)
    assert [(key.text, key.mark) for key, _ in root.entries] == [("a", Mark(1, 1)), ("über", Mark(2, 1))]
    items = root.get("über")
    assert isinstance(items, Sequence)
    assert items.items[0].mark == Mark(3, 5)
    inner = items.items[1]
    assert isinstance(inner, Mapping)
    assert inner.entries[0][1].mark == Mark(4, 12)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        ("-9223372036854775808", -(2**63)),
        ("hello", "hello"),
        ("10s", "10s"),
        ("1.0.0", "1.0.0"),
        ("a: b"[:1], "a"),
        ("output.n > 1", "output.n > 1"),
        ("09", "09"),
    ],
)
def test_plain_text_is_a_constant_a_json_number_or_text(text: str, value: object) -> None:
    """Numbers are those JSON knows; everything else that YAML has no other meaning for is text."""
    assert plain_value(text) == (value, "")


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("no", "true or false"),
        ("NO", "true or false"),
        ("Yes", "true or false"),
        ("on", "true or false"),
        ("off", "true or false"),
        ("1:30", "a number"),
        ("010", "a number"),
        ("0x1F", "a number"),
        ("1_000", "a number"),
        ("+5", "a number"),
        (".5", "a number"),
        (".inf", "a number"),
        (".nan", "a number"),
        ("2026-01-01", "a date"),
        ("2026-01-01T00:00:00Z", "a date"),
        ("1e999", "an infinite number"),
        ("9223372036854775808", "a number of more than 64 bits"),
        ("1" * 500, "a number of more than 64 bits"),
    ],
)
def test_what_yaml_reads_differently_than_people_is_marked(text: str, reading: str) -> None:
    """The Norway problem and its relatives: the text is kept, and whoever uses it has to report it."""
    assert plain_value(text) == (text, reading)


def test_quotes_end_every_doubt() -> None:
    """In quotes or in a block, text is text."""
    document = read_document(b"a: 'no'\nb: \"1.0\"\nc: |\n  yes\nd: no\n")
    assert [value_of(document, key).value for key in "abc"] == ["no", "1.0", "yes\n"]
    assert [value_of(document, key).ambiguity for key in "abcd"] == ["", "", "", "true or false"]


@pytest.mark.parametrize("key", ["no", "on", "1.0", "1", "null", "true", "2026-01-01", "~"])
def test_keys_that_are_no_text_to_yaml_ask_for_quotes(key: str) -> None:
    """`on: …` is the key True to YAML 1.1."""
    (found,) = troubles(f"a: 1\n{key}: 2\n".encode())
    assert (found.code, found.mark, found.found) == ("definition.ambiguous", Mark(2, 1), key)
    assert found.suggestion == f'write "{key}"'
    assert troubles(f"a: 1\n'{key}': 2\n".encode()) == []


def test_no_key_stands_twice() -> None:
    """YAML parsers keep the last one in silence; here the second one is named."""
    (found,) = troubles(b"a: 1\nb: 2\na: 3\n")
    assert (found.code, found.mark, found.found) == ("definition.duplicate_key", Mark(3, 1), "a")
    (inner,) = troubles(b"x: {y: 1, 'y': 2}\n")
    assert inner.mark == Mark(1, 11)


@pytest.mark.parametrize(
    ("source", "line", "part"),
    [
        (b"a: 1\nb: x: y\n", 2, "mapping values are not allowed"),
        (b"a: [1, 2\nb: 3\n", 2, "did not find expected"),
        (b"a:\n\t- b\n", 2, "cannot start any token"),
        (b"a: 'x\n", 2, "unexpected end of stream"),
        (b"a: @x\n", 1, "cannot start any token"),
        (b"a: b\n c: d\n", 2, "mapping values are not allowed"),
        (b"a: x\x00y\n", 1, "control characters are not allowed"),
        (b"{", 1, ""),
        (b"%YAML 9.9\n---\na: 1", 1, "incompatible"),
    ],
)
def test_broken_yaml_is_named_with_its_place(source: bytes, line: int, part: str) -> None:
    """One message with a line, whatever the parser stumbled over."""
    found = refused(source)
    assert found.code == "definition.yaml"
    assert found.mark.line in {line, line + 1}
    assert part in found.message


def test_an_unquoted_expression_in_braces_gets_a_hint() -> None:
    """`{text: ${input.text}}` is the slip everybody makes once."""
    assert "quotes" in refused(b"input: {text: ${input.text}}\n").suggestion


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!!binary aGk=", "!foo x", "!!str x", "! x"])
def test_tags_are_refused_and_never_acted_on(tag: str) -> None:
    """A file cannot name a type, let alone one of Python's."""
    found = troubles(f"a: {tag}\n".encode())
    assert found[0].code == "definition.yaml"
    assert "is not supported" in found[0].message


def test_a_condition_that_starts_with_a_bang_is_told_about_quotes() -> None:
    """`condition: !output.done` is a tag to YAML; the text is kept as it was meant, so that nothing else is wrong."""
    document = read_document(b"condition: !has(output.a) == output.b\n")
    assert document.troubles[0].suggestion == "put a condition that starts with ! in quotes"
    assert value_of(document, "condition").text == "!has(output.a) == output.b"
    for operator in ("&&", "||"):
        assert "in quotes" in refused(f"condition: !has(output.a) {operator} output.b\n".encode()).suggestion


def test_merge_keys_are_refused() -> None:
    """They hide where a value comes from."""
    found = troubles(b"a: &a {x: 1}\nb: {<<: *a}\n")
    assert [trouble.found for trouble in found] == ["<<"]


def test_aliases_repeat_what_they_name() -> None:
    """A few of them are a convenience."""
    document = read_document(b"a: &a {x: 1}\nb: *a\n")
    assert isinstance(document.root, Mapping)
    assert document.root.get("b") == document.root.get("a")
    assert document.troubles == []


def test_a_billion_laughs_stay_a_small_file() -> None:
    """Aliases of aliases multiply; what they stand for is counted before anything is built from it."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 10)]
    found = refused("\n".join(lines).encode())
    assert found.code == "definition.yaml"
    assert str(MAX_NODES) in found.message
    many = "a: &a 1\nb: [" + ", ".join(["*a"] * (MAX_ALIASES + 1)) + "]\n"
    assert str(MAX_ALIASES) in refused(many.encode()).message
    wide = "a: &a [" + ", ".join(["x"] * 1500) + "]\nb: [" + ", ".join(["*a"] * 20) + "]\n"
    assert str(MAX_NODES) in refused(wide.encode()).message


def test_an_alias_inside_of_itself_is_refused() -> None:
    """A cycle has no end."""
    assert "has no end" in refused(b"a: &a [*a]\n").message
    unknown = refused(b"x: &x 1\na: *nope\n")
    assert "no such anchor" in unknown.message
    assert unknown.found == "*nope"


def test_depth_size_and_documents_are_bounded() -> None:
    """Each with the place where it was too much."""
    assert str(MAX_DEPTH) in refused(b"[" * 1000).message
    deep = b"".join(b" " * n + b"a:\n" for n in range(MAX_DEPTH + 2)) + b" " * (MAX_DEPTH + 2) + b"b: 1\n"
    assert str(MAX_DEPTH) in refused(deep).message
    assert str(MAX_BYTES) in refused(b"#" * (MAX_BYTES + 1)).allowed[0]
    assert refused(b"a: 1\n---\nb: 2\n").mark == Mark(2, 1)
    assert read_document(b"# " + b"x" * (MAX_BYTES - 3) + b"\n").root is None


def test_only_utf_8_is_read() -> None:
    """The place of the first byte that is none, and a byte order mark is forgiven."""
    found = refused("name: Zürich\n".encode("latin-1"))
    assert (found.mark, found.found, found.allowed) == (Mark(1, 8), "byte 0xfc", ("UTF-8",))
    assert refused("a: 1".encode("utf-16")).found == "byte 0xff"
    assert value_of(read_document(b"\xef\xbb\xbfa: 1\n"), "a").mark == Mark(1, 4)


@pytest.mark.parametrize("source", [b"", b"\n", b"# nothing\n", b"---\n...\n"])
def test_an_empty_file_has_no_root(source: bytes) -> None:
    """Or a null one; nothing fails."""
    root = read_document(source).root
    assert root is None or (isinstance(root, Scalar) and root.value is None)


@pytest.mark.parametrize(
    ("source", "offset", "place"),
    [
        ("a: output.x > 1\n", 7, Mark(1, 11)),
        ("a: 'it''s x'\n", 5, Mark(1, 11)),
        ('a: "x\\ty z"\n', 2, Mark(1, 8)),
        ('a: "\\u00e9z"\n', 1, Mark(1, 11)),
        ("a: |\n  first\n    second\n", 8, Mark(3, 5)),
        ("a: >\n  first\n  second\n", 6, Mark(3, 3)),
        ("a: first\n   second\n", 6, Mark(2, 4)),
        ('a: "first\n  second"\n', 6, Mark(2, 3)),
        ("a: &b 'text'\n", 2, Mark(1, 10)),
    ],
)
def test_a_place_inside_of_a_text_is_found_in_the_file(source: str, offset: int, place: Mark) -> None:
    """Through quotes, escapes, anchors and lines, so that an error in an expression has a caret."""
    document = read_document(source.encode())
    scalar = value_of(document, "a")
    assert place_in(scalar, document.lines, offset) == place
    line = document.lines[place.line - 1]
    if "\\" not in source:
        assert line[place.column - 1] == scalar.text[offset]


def read_or_refused(source: bytes) -> list[Trouble]:
    """What is wrong with a file, whether it can be read or not; anything else raised fails the test."""
    try:
        return read_document(source).troubles
    except Unreadable as error:
        return [error.trouble]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(source: bytes) -> None:
    """Nothing else comes out, whatever goes in, and every place is one."""
    assert all(trouble.mark.line >= 1 and trouble.mark.column >= 1 for trouble in read_or_refused(source))


@given(st.text(st.sampled_from("a:- \n[]{}'\"&*!|>#,?%@`\t0"), max_size=60))
def test_any_punctuation_is_read_or_refused(source: str) -> None:
    """The same for texts that are nearly YAML."""
    assert all(trouble.code.startswith("definition.") for trouble in read_or_refused(source.encode()))
