"""How much hypothesis tries: a little while one works, much in CI.

The profile is chosen by `AF_HYPOTHESIS_PROFILE` (`dev` or `ci`), else `ci` where `CI` is set. It is read once, when the
tests are collected, because each test cleans the environment. Tests of the wire format use `wire` as their settings:

    @wire
    @given(envelopes())
    def test_a_sealed_envelope_opens_again(...) -> None: ...
"""

import os

from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("AF_HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
"""The profile in force; an unknown one stops the run."""

WIRE_EXAMPLES = 10_000 if PROFILE == "ci" else 300
"""Examples for each property of the wire format: it is parsed from strangers, so it is tried the most."""

_base = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("dev", _base, max_examples=50)
settings.register_profile("ci", _base, max_examples=200, print_blob=True)
settings.load_profile(PROFILE)

wire = settings(max_examples=WIRE_EXAMPLES)
"""Settings for property tests of the wire format."""
