"""A service of a local mesh that does nothing but live, or fail as it is told: `STUB_MODE`.

`ready` announces itself and drains on SIGTERM; `exit` ends at once with a reason in its log; `silent` never announces
itself; `deaf` announces itself and ignores SIGTERM; `brief` announces itself and ends by itself soon.
"""

import asyncio
import json
import os
import signal
import sys
import time

from agentflow.mesh.transport import ServiceSpec
from agentflow.service import Host, run
from agentflow.settings import ServiceSettings, load


def main(name: str, mode: str) -> int:
    """Be the service `name`."""
    if mode == "exit":
        sys.stderr.write(json.dumps({"event": "service.failed", "reason": "the stub was told to fail"}) + "\n")
        return 3
    if mode == "silent":
        time.sleep(60)

    async def body(host: Host) -> None:
        if mode == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        async with host.registered(host.heartbeat_for(name, name)):
            host.log.info("stub.ready", crash_at=os.environ.get("AF_CRASH_AT"), project=os.environ.get("AF_PROJECT"))
            waiting = asyncio.create_task(host.stop.wait())
            await asyncio.wait({waiting}, timeout=0.3 if mode == "brief" else None)

    return run(ServiceSpec(f"stub-{name}", "1.0.0", "a stub"), load(ServiceSettings), body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ.get("STUB_MODE", "ready")))
