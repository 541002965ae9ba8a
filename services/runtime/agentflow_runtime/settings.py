"""What a runtime process takes besides the settings every service has."""

from pydantic import Field

from agentflow.settings import ServiceSettings


class RuntimeSettings(ServiceSettings):
    """Settings of `agentflow-runtime`."""

    cancel_grace: float = Field(1.0, gt=0, description="seconds a cancelled handler gets to clean up")
    restart_delay: float = Field(1.0, gt=0, description="seconds until a failed agent is started again, then doubled")
