"""Three steps: `agentflow dev --project examples/three_steps/agentflow.yaml`, and beside it this."""

import asyncio

from agentflow import Client


async def main() -> None:
    """Submit, and wait."""
    async with Client.connect() as client:
        run = await client.submit("three-steps", {"text": "  hello   mesh  "})
        print(await run.result(timeout=30))  # noqa: T201 - it shows what it got


asyncio.run(main())
