"""The sections of `speechpool.toml` and what may stand in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

__all__ = ["EndpointSection", "Sections", "ServiceSection", "read"]


class ServiceSection(BaseModel):
    """`[service]`: the flags of `speechpool service`."""

    model_config = ConfigDict(extra="forbid")

    host: str | None = None
    port: int | None = Field(default=None, ge=0, le=65535)
    api_key: str | None = None
    engine: str | None = None
    profile: str | None = None
    workers: int | None = Field(default=None, ge=1)
    max_queue: int | None = Field(default=None, ge=1)
    max_connections: int | None = Field(default=None, ge=1)
    drain: float | None = Field(default=None, ge=0)


class EndpointSection(BaseModel):
    """`[endpoint]`: where the other verbs connect to."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = None
    api_key: str | None = None
    workspace: str | None = None
    dialect: Literal["cosyvoice"] | None = None


class Sections(BaseSettings):
    """The whole file."""

    model_config = SettingsConfigDict(env_prefix="SPEECHPOOL_", env_nested_delimiter="__", extra="ignore")

    service: ServiceSection = ServiceSection()
    endpoint: EndpointSection = EndpointSection()


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return what the environment and the file at `path` (which may be missing) set.

    Raises:
        tomllib.TOMLDecodeError: The file is no TOML.
        pydantic.ValidationError: A name or a value is wrong.
    """

    class FromFile(Sections):
        @classmethod
        def settings_customise_sources(  # the parameters are pydantic's
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return env_settings, TomlConfigSettingsSource(settings_cls, path)

    return FromFile().model_dump(exclude_unset=True)
