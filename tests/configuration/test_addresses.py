"""Addresses are checked when settings are read, all at once, and not by whatever tries them first."""

import pytest

from agentflow.errors import ConfigError
from agentflow.settings import ServiceSettings, load

FINE = {
    "AF_NATS_URL": [
        "nats://h:4222",
        "tls://h",
        "h:4222",
        "nats://u:p@h:4222,nats://[::1]:4222",
        "memory://x",
        "memory:x",
    ],
    "AF_MONITOR_URL": ["http://h:8222", "https://h", "http://[::1]:8222/"],
    "AF_HTTP_ADDRESS": ["off", ":9464", "0.0.0.0:0", "[::1]:9464"],
}
WRONG = {
    "AF_NATS_URL": ["foo://x", "nats://h:99999", "nats://", "nats://h:4222,,nats://i", "http://h:4222"],
    "AF_MONITOR_URL": ["zz", "nats://h:8222", "http://", "http://h:port"],
    "AF_HTTP_ADDRESS": ["zz", "h:port", "h:70000", "on"],
}


@pytest.mark.parametrize(("name", "value"), [(name, each) for name, values in FINE.items() for each in values])
def test_an_address_that_can_be_used_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """As it is written."""
    monkeypatch.setenv(name, value)

    assert value == getattr(load(ServiceSettings), name.removeprefix("AF_").lower())


@pytest.mark.parametrize(("name", "value"), [(name, each) for name, values in WRONG.items() for each in values])
def test_an_address_that_cannot_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """With what is allowed."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=rf"{name}.*(allowed|address)"):
        load(ServiceSettings)


def test_all_that_are_wrong_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start tells everything."""
    for name, values in WRONG.items():
        monkeypatch.setenv(name, values[0])

    with pytest.raises(ConfigError) as refused:
        load(ServiceSettings)

    assert all(name in str(refused.value) for name in WRONG)
