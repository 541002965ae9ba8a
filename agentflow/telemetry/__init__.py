"""Spans, metrics, health: what a mesh shows of itself while it works."""

__all__: list[str] = []
