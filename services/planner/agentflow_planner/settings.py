"""Settings of the planner process."""

from typing import Literal

from pydantic import Field

from agentflow.settings import ServiceSettings


class PlannerSettings(ServiceSettings):
    """What the planner takes, beside what every service takes."""

    cel_engine: Literal["auto", "cpp", "python"] = Field("auto", description="condition engine of new runs")
    concurrency: int = Field(64, ge=1, description="runs decided about at once")
