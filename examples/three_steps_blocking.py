"""The same without an event loop; see three_steps.py."""

from agentflow.blocking import Client

with Client.connect() as client:
    run = client.submit("three-steps", {"text": "  hello   mesh  "})
    print(run.result(timeout=30))  # noqa: T201 - it shows what it got
