"""The program a sandbox's child process starts with: finds its modules, then hands over to the guard.

It is run by path with a bare interpreter (`-I -S -B`: no environment, no user site, no `site`, no bytecode written), so
that nothing but the standard library is loaded until the request on standard input has said where the rest is.
"""

import json
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Read one request, serve it, and leave."""
    request = json.loads(sys.stdin.buffer.read())
    sys.path[:] = request["paths"]
    from agentflow_executor.guard import serve

    serve(request)


if __name__ == "__main__":
    main()
