"""Names on our spans: those of the semantic conventions, and our own below `agentflow.`. Pure.

Messaging names follow the OpenTelemetry semantic conventions 1.43 (`model/messaging`, status: development), GenAI names
those of `open-telemetry/semantic-conventions-genai` as of November 2026 (status: development). Both still move, and the
Python package deprecates its GenAI constants, so they are written down here once: a change of the conventions is a
change of this module. `nats` is not among the listed systems; the conventions allow a name of one's own.
"""

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
TEMPLATE = "messaging.destination.template"
MESSAGE_ID = "messaging.message.id"
CONVERSATION_ID = "messaging.message.conversation_id"
BODY_SIZE = "messaging.message.body.size"
ERROR_TYPE = "error.type"

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_AGENT = "gen_ai.agent.name"
GEN_AI_TOOL = "gen_ai.tool.name"
GEN_AI_TOOL_CALL = "gen_ai.tool.call.id"
GEN_AI_WORKFLOW = "gen_ai.workflow.name"
GEN_AI_CONVERSATION = "gen_ai.conversation.id"

TENANT = "agentflow.tenant"
WORKFLOW = "agentflow.workflow"
SCHEMA = "agentflow.schema"
DELIVERIES = "agentflow.deliveries"
OUTCOME = "agentflow.outcome"
EFFECT = "agentflow.effect"
STATE = "agentflow.state"
REASON = "agentflow.reason"
LINK = "agentflow.link"
"""What a link is for: `redelivery`, `replay`, `cause` or `caller`."""

NATS = "nats"
SEND = "send"
PROCESS = "process"
EXECUTE_TOOL = "execute_tool"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"
PLAN = "plan"
