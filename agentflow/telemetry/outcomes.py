"""How storing went of late, by stream: what readiness knows about the disk without writing to it.

One for the process, because a process is ready or not as a whole. A stream whose last attempt got no acknowledgement is
in doubt until one there is acknowledged: a full disk kills single streams of a server that answers well otherwise.
"""

import threading
from collections.abc import Mapping


class Stores:
    """The streams in doubt, by name, and the code of what happened there last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._doubts: dict[str, str] = {}

    def acknowledged(self, stream: str) -> None:
        """Something was stored in `stream`."""
        if stream in self._doubts:
            with self._lock:
                self._doubts.pop(stream, None)

    def failed(self, stream: str, code: str) -> None:
        """An attempt to store in `stream` was not acknowledged."""
        with self._lock:
            self._doubts[stream] = code

    def doubts(self) -> Mapping[str, str]:
        """The streams in doubt."""
        with self._lock:
            return dict(self._doubts)

    def clear(self) -> None:
        """Forget everything: another server, another process."""
        with self._lock:
            self._doubts.clear()


STORES = Stores()
"""Those of this process."""
