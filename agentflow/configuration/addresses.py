"""Addresses as settings: what can be connected to or listened on, checked before anything tries. Pure."""

from urllib.parse import urlsplit

BROKER = ("nats", "tls", "ws", "wss")
"""Schemes of a broker's address; `memory:` names one inside the process."""


def broker_urls(value: str) -> str:
    """One or several addresses of brokers, by comma; raises `ValueError` with what is allowed."""
    for part in value.split(","):
        url = part.strip()
        if url.startswith("memory:"):
            continue
        if "://" in url and (urlsplit(url).scheme not in BROKER or not _has_host(url)):
            raise ValueError(f"an address is nats://host:port; schemes are {', '.join(BROKER)}")
        if not url:
            raise ValueError("an address is empty; allowed is nats://host:port, several by comma")
    return value


def monitor_url(value: str) -> str:
    """The address of a monitoring port, or nothing; raises `ValueError`."""
    if value and (urlsplit(value).scheme not in ("http", "https") or not _has_host(value)):
        raise ValueError("allowed is http://host:port, or nothing")
    return value


def listening(value: str) -> str:
    """`host:port`, `:port` or `off`; raises `ValueError`."""
    host, colon, port = value.rpartition(":")
    if value != "off" and not (colon and port.isdecimal() and int(port) <= 65535 and " " not in host):
        raise ValueError("allowed are host:port, :port and off; ports are 0 (a free one) to 65535")
    return value


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no port
    except ValueError:
        return False
    return bool(parts.hostname)
