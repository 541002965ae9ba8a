"""Settings of the platform that are read and checked everywhere, and used where something reads them yet.

The names are fixed by the platform's requirements (AF-10-09); a deployment may set them already. Where nothing reads
one in this version, `config show` and a warning at every start say so, instead of taking it without a word.
"""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, SecretStr
from pydantic_settings import NoDecode

from agentflow.configuration.base import LayeredSettings

ModelBackend = Literal["openai", "anthropic", "vllm", "ollama", "tgi"]
"""Where a model is served."""


class PlatformSettings(LayeredSettings):
    """What the platform as a whole is told."""

    mode: Literal["control", "data"] | None = Field(None, description="plane this process belongs to: control, data")
    db_dsn: SecretStr | None = Field(None, description="PostgreSQL, postgresql://user:password@host/database")
    vector_backend: Literal["pinecone", "qdrant"] | None = Field(None, description="vector store: pinecone, qdrant")
    qdrant_url: str | None = Field(None, description="http(s)://host:6333 of Qdrant", pattern=r"^https?://\S+$")
    model_backends: Annotated[tuple[ModelBackend, ...] | None, NoDecode] = Field(
        None, description="backends of models, by comma: openai, anthropic, vllm, ollama, tgi"
    )
    residency_policy: Literal["strict", "lenient", "off"] | None = Field(
        None, description="what happens to data that must stay in a region: strict, lenient, off"
    )

    @pydantic.field_validator("db_dsn")
    @classmethod
    def _is_dsn(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("a DSN begins with postgresql://")
        return value

    @pydantic.field_validator("model_backends", mode="before")
    @classmethod
    def _by_comma(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


NOT_USED = frozenset(PlatformSettings.model_fields)
"""Settings nothing reads in this version."""

OTHER_VARIABLES = {
    "AF_DEBUG": "1 shows tracebacks",
    "AF_DEMO_MODEL": "model of the support desk",
    "AF_NATS_SERVER_BIN": "nats-server to start, instead of the one that is found",
    "AF_SETTINGS_DIR": "folder of .env, agentflow.toml and pyproject.toml, instead of the working directory",
    "AF_HYPOTHESIS_PROFILE": "effort of the property tests",
}
"""Variables that are no setting of a service."""

SHARED_VARIABLES = {
    "NATS_URL": "the broker, where AF_NATS_URL is not set",
    "NATS_CONTEXT": "context of the nats CLI that says where the broker is, where neither is set",
    "OPENAI_API_KEY": "key of the models behind the support desk",
    "OPENAI_BASE_URL": "OpenAI-compatible server for them, such as http://127.0.0.1:11434/v1",
    "NO_COLOR": "no colour",
    "FORCE_COLOR": "colour off a terminal too",
}
"""Variables of others that are honoured."""

SECRET_VARIABLES = frozenset({"OPENAI_API_KEY", "AF_DB_DSN"})
"""Variables of which only the presence is shown."""
