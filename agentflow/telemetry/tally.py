"""Counting on the way of every message: a number in a dictionary, shown when a scrape asks.

An SDK's counter costs some microseconds a call, several times what it counts; a tally costs a tenth of one. It is moved
by the event loop alone and read from the thread that serves `/metrics`.
"""

from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Observation


class Tally:
    """Numbers by the values of a few labels."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._numbers: dict[tuple[str, ...], float] = {}

    def add(self, number: float, *values: str) -> None:
        """Add to the number of these label values, in the order of the labels."""
        self._numbers[values] = self._numbers.get(values, 0) + number

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """All numbers, for an observable instrument."""
        return [
            Observation(number, dict(zip(self._labels, values, strict=True)))
            for values, number in list(self._numbers.items())
        ]
