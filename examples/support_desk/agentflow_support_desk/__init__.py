"""A support desk as an agentflow example: agents, tools, a workflow and their material."""

from agentflow_support_desk.classifier import ANSWER_FROM, Classification, Classifier
from agentflow_support_desk.errors import SupportDeskError
from agentflow_support_desk.knowledge import Article, Hit, build_index, load_articles, search
from agentflow_support_desk.model import model_reply
from agentflow_support_desk.tickets import MATERIAL, Ticket, load_examples, load_tickets
from agentflow_support_desk.writer import Draft, check_reply, draft_reply

__all__ = [
    "ANSWER_FROM",
    "MATERIAL",
    "Article",
    "Classification",
    "Classifier",
    "Draft",
    "Hit",
    "SupportDeskError",
    "Ticket",
    "build_index",
    "check_reply",
    "draft_reply",
    "load_articles",
    "load_examples",
    "load_tickets",
    "model_reply",
    "search",
]
