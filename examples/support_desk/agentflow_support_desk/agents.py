"""The desk's agents: one tells what a ticket is about, one writes the answer, one looks up payments."""

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentflow.agent import Agent, AgentContext, AgentMessage, FunctionAgent, HandlerContext, agent
from agentflow.errors import StepError
from agentflow_support_desk.classifier import Classifier
from agentflow_support_desk.errors import EmptyTextError, ModelRefused, ModelUnavailable, NoArticleError
from agentflow_support_desk.knowledge import Hit
from agentflow_support_desk.model import model_reply
from agentflow_support_desk.tickets import load_examples
from agentflow_support_desk.writer import Draft, draft_reply

_AT_ONCE = 5
"""Payments the bookkeeper looks up at once."""

_REFERENCE = re.compile(r"\bHB-[0-9]{4}\b")


class ClassifierAgent(Agent):
    """Tells what a ticket is about and how sure it is; learns from the file `settings.examples` when it starts."""

    id = "classifier"
    description = "Tells what a ticket is about"
    concurrency = 16

    async def on_start(self, ctx: AgentContext) -> None:
        """Learn from the examples."""
        examples = load_examples(Path(ctx.settings["examples"]))
        self._classifier = Classifier.train(examples)
        ctx.log.info("classifier.trained", examples=len(examples))

    async def on_message(self, ctx: HandlerContext, message: AgentMessage) -> dict[str, Any]:
        """`{text}` to `{intent, confidence, runner_up, margin, references}`."""
        try:
            found = self._classifier.classify(str(message.input["text"]))
        except EmptyTextError as error:
            raise StepError(str(error), blame="input", code=error.error_code) from error
        rounded = {"confidence": round(found.confidence, 4), "margin": round(found.margin, 4)}
        return {**asdict(found), **rounded, "references": references(str(message.input["text"]))}


@agent("writer", concurrency=16)
async def write_reply(ctx: HandlerContext, input: Mapping[str, Any]) -> dict[str, Any]:
    """Draft an answer from the articles found, and have it checked before it may be sent."""
    hits = [Hit(**hit) for hit in input["hits"]]
    draft = await _draft(str(input["text"]), str(input["intent"]), hits)
    checked = await ctx.call_tool("check_reply", body=draft.body)
    if checked["problems"]:
        raise StepError("; ".join(checked["problems"]), blame="agent", code="reply.unfit")
    return asdict(draft)


@agent("bookkeeper", concurrency=4)
async def look_up_payments(ctx: HandlerContext, input: Mapping[str, Any]) -> dict[str, Any]:
    """Look up every payment a customer names, a few at a time.

    Simple-minded on purpose: a ticket that names very many makes it ask over and over, and the detector blocks it.
    """
    named, payments = list(input["references"]), []
    for at in range(0, len(named), _AT_ONCE):
        asked = (ctx.call_tool("payment_status", reference=each) for each in named[at : at + _AT_ONCE])
        payments += await asyncio.gather(*asked)
    return {"payments": payments}


def references(text: str) -> list[str]:
    """The payment references in a text, such as `HB-1042`, each once."""
    return list(dict.fromkeys(_REFERENCE.findall(text)))


async def _draft(text: str, intent: str, hits: list[Hit]) -> Draft:
    """With a model where one is configured, from the article alone otherwise."""
    try:
        if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
            return await model_reply(text, intent, hits)
        return draft_reply(text, intent, hits)
    except NoArticleError as error:
        raise StepError(str(error), blame="input", code=error.error_code) from error
    except (ModelUnavailable, ModelRefused) as error:
        raise StepError(str(error), blame="model", code=error.error_code) from error


writer: FunctionAgent = write_reply
bookkeeper: FunctionAgent = look_up_payments
