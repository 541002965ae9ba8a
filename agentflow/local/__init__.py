"""A mesh on one machine: supervised processes, and the server and services they are."""

__all__: list[str] = []
