"""The way to the broker: the transport protocol, its implementations, and what is built on it."""

__all__: list[str] = []
