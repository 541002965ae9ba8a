"""Semantic versions: the specification's own examples, and the laws of an order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import InputError
from agentflow.versions import Version, latest, parse_version

IN_ORDER = [
    "0.0.4",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "2.1.10",
    "10.0.0",
]
"""Section 11 of the specification, and numbers that text would put in another order."""

numbers = st.integers(0, 10**6)
identifiers = st.from_regex(r"0|[1-9][0-9]{0,5}|[0-9]{0,3}[A-Za-z-][0-9A-Za-z-]{0,5}", fullmatch=True)
versions = st.builds(Version, numbers, numbers, numbers, st.lists(identifiers, max_size=3).map(tuple))


def test_precedence_is_that_of_the_specification() -> None:
    """Its own examples, in their order."""
    assert IN_ORDER == [str(version) for version in sorted(map(parse_version, reversed(IN_ORDER)))]


@given(versions)
def test_a_version_is_printed_as_it_was_read(version: Version) -> None:
    """Print and parse are each other's inverse."""
    assert version == parse_version(str(version))


@given(versions, versions, versions)
def test_precedence_is_an_order(a: Version, b: Version, c: Version) -> None:
    """Any two compare one way, and no three go round in a circle."""
    assert 1 == (a < b) + (b < a) + (a == b)
    assert not (a < b < c) or a < c


@given(versions)
def test_a_release_is_above_its_pre_releases(version: Version) -> None:
    """Whatever the pre-release is called."""
    release = Version(version.major, version.minor, version.patch)

    assert version == release or version < release


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3-a..b",
        "v1.2.3",
        "1.2.3+build",
        " 1.2.3",
        "1.2.3\n",
        "١.2.3",
        "1.2.3-ä",
        "1" * 62 + ".0.0",
    ],
)
def test_what_is_no_version_is_refused_with_the_form_that_is(text: str) -> None:
    """Nothing is mended in silence; build metadata cannot tell two definitions apart."""
    with pytest.raises(InputError) as caught:
        parse_version(text)
    assert "version.invalid" == caught.value.error_code
    assert "MAJOR.MINOR.PATCH[-PRERELEASE]" == caught.value.fields["allowed"]


def test_the_latest_is_the_highest_release() -> None:
    """A pre-release is only taken where there is no release."""
    assert latest([]) is None
    assert "1.10.0" == latest(["1.9.0", "1.10.0", "2.0.0-rc.1"])
    assert "2.0.0-rc.10" == latest(["2.0.0-rc.9", "2.0.0-rc.10"])


def test_a_version_compares_with_versions_only() -> None:
    """Text beside a version is a mistake, not an order."""
    with pytest.raises(TypeError):
        assert parse_version("1.0.0") < "2.0.0"
