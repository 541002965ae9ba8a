"""Found by a service's interpreter through its `PYTHONPATH`: notes how its publishes ended (tests/faults/publishes.py)."""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

TARGET = "agentflow.mesh.jetstream"


class _Patching(importlib.abc.Loader):
    """Loads the module as ever, and wraps its `publish`."""

    def __init__(self, loader: Any, path: str) -> None:
        self._loader, self._path = loader, path

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        """Run it, then put the recorder around `publish`."""
        self._loader.exec_module(module)
        from tests.faults.publishes import PublishLog, recorded

        log, writer = PublishLog(Path(self._path)), f"{Path(sys.argv[0]).parent.name}:{os.getpid()}"
        transport: Any = module.JetStreamTransport
        publish = transport.publish

        async def noted(self: Any, subject: str, body: bytes, *, stream: str, **more: Any) -> Any:
            async def plainly(*args: Any, **named: Any) -> Any:
                return await publish(self, *args, **named)

            return await recorded(plainly, log, writer, subject, body, stream, more)

        transport.publish = noted


class _Finder(importlib.abc.MetaPathFinder):
    """Stands before the others for one module, once."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec with a patching loader."""
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _Patching(spec.loader, self._path)
        return spec


if _path := os.environ.get("RECORD_PUBLISHES"):
    sys.meta_path.insert(0, _Finder(_path))
