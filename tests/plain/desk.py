"""The desk of the page "agentflow with the nats CLI": an agent drafts, a person approves, a tool sends."""

from pathlib import Path
from typing import Any

import yaml

from agentflow.agent import Agent, AgentMessage, HandlerContext
from agentflow.tools import ToolContext, tool

WORKFLOW = """
name: desk
version: 1.0.0
planner: fsm
timeout: 10m
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
initial_state: draft
final_states: [done]
states:
  draft: {agent: drafter, input: {text: "${input.text}"}, timeout: 60s, on_success: approve}
  approve: {signal: approved, timeout: 5m, on_success: send}
  send: {tool: send, input: {text: "${outputs.draft.text}"}, timeout: 60s, on_success: done}
output: {sent: "${outputs.send.sent}"}
"""


class Drafter(Agent):
    """Answers politely."""

    id = "drafter"

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """The draft."""
        return {"text": f"Thank you for your message: {message.input['text']}"}


@tool(effect="idempotent", timeout=5)
def send(ctx: ToolContext, text: str) -> dict[str, Any]:
    """Say that it was sent."""
    return {"sent": True}


def lay_out(directory: Path) -> Path:
    """Write project and definition; returns the project file."""
    directory.chmod(0o755)
    (directory / "desk.yaml").write_text(WORKFLOW)
    project = {
        "agents": [{"use": "tests.plain.desk:Drafter"}],
        "tools": [{"use": "tests.plain.desk:send"}],
        "allow": {"workflows": {"desk": ["send"]}},
        "workflows": ["desk.yaml"],
    }
    path = directory / "agentflow.yaml"
    path.write_text(yaml.safe_dump(project))
    return path
