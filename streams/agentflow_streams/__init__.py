"""Streams and buckets of an agentflow mesh: definitions, provisioning, history, verification, replay."""

__all__: list[str] = []
