"""What every settings class is: frozen, from `AF_*` names, filled by `agentflow.configuration.resolving` alone."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class LayeredSettings(BaseSettings):
    """Settings that read nothing by themselves: `resolve` has read every layer and hands the values in."""

    model_config = SettingsConfigDict(env_prefix="AF_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in."""
        return (init_settings,)
