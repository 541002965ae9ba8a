"""The executor's settings, read once in `__main__`."""

from pydantic import Field

from agentflow.settings import ServiceSettings


class ExecutorSettings(ServiceSettings):
    """What the executor takes beside what every service takes."""

    concurrency: int = Field(4, ge=1, le=256, description="tool calls this process runs at once")
    sandbox: str = Field("process", description="process; docker and gvisor are not built yet")
    sandbox_uid: int = Field(65534, ge=1, description="user and group tools run as where the executor is root")
