"""Where a program speaks to, and with which key: what it has set, else what the environment says.

Source: `common/env.py`, `common/api_key.py` and `__init__.py` of the official SDK 2.0.2.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import InputRequired, built

if TYPE_CHECKING:
    from speechpool.synthesis import Endpoint

__all__ = ["configured", "current_key", "endpoint_for", "from_environment", "region_urls", "resolved"]

_OURS: Final = "speechpool.dashscope"
SOURCE = _OURS
"""The module that the program sets `api_key` and the URLs on; another one while the official names are patched."""
DESTINATION: str | None = None
"""Where every connection goes, whatever the program says; see `patch`."""

_REGIONS: Final = ("ap-southeast-1", "us-east-1", "cn-hongkong", "eu-central-1", "ap-northeast-1")
"""Regions whose host name carries the workspace. Beijing does so only when it is asked for by `set_region`."""
_KINDS: Final = {
    "base_websocket_api_url": ("DASHSCOPE_WEBSOCKET_BASE_URL", "wss", "api-ws/{version}/inference"),
    "base_http_api_url": ("DASHSCOPE_HTTP_BASE_URL", "https", "api/{version}"),
    "base_compatible_api_url": ("DASHSCOPE_COMPATIBLE_BASE_URL", "https", "compatible-mode/{version}"),
}
_PLACE: Final = "{workspace_id}"
_WORKSPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NAMES: Final = {each.lower(): each for each in ("Authorization", "User-Agent", "X-DashScope-WorkSpace")}


def configured(name: str) -> str | None:
    """Return what the program has set for `name`, else what the environment says."""
    own: dict[str, str | None] = vars(sys.modules[_OURS])
    return own[name] if name in own else getattr(sys.modules[SOURCE], name)


def from_environment(name: str) -> str | None:
    """Return the value that `name` has while no program has set it."""
    environment = os.environ
    if name == "api_key":
        return environment.get("DASHSCOPE_API_KEY")
    if name == "api_key_file_path":
        return environment.get("DASHSCOPE_API_KEY_FILE_PATH")
    variable, _, _ = _KINDS[name]
    region = environment.get("DASHSCOPE_API_REGION", "")
    if region in _REGIONS:
        workspace = environment.get("DASHSCOPE_WORKSPACE_ID")
        host = f"{_checked(workspace) if workspace else _PLACE}.{region}.maas.aliyuncs.com"
    else:
        host = "dashscope.aliyuncs.com"
    return environment.get(variable) or _url(name, host, environment.get("DASHSCOPE_API_VERSION", "v1"))


def region_urls(region: str, workspace: str | None) -> Mapping[str, str]:
    """Return the base URLs of a region.

    Raises:
        ValueError: The region is unknown, or the workspace id is missing or none.
    """
    known = sorted({*_REGIONS, "cn-beijing"})
    if region not in known:
        raise ValueError(f"Unsupported region {region!r}. Supported regions: {known}")
    if not workspace:
        raise ValueError("workspace_id is required")
    host = f"{_checked(workspace)}.{region}.maas.aliyuncs.com"
    return {name: _url(name, host, "v1") for name in _KINDS}


def resolved(url: str | None, workspace: str | None) -> str:
    """Return the URL to dial: the given one or the configured one, the workspace put in where it asks for it.

    Raises:
        InputRequired: It asks for a workspace, and there is none.
        ValueError: The workspace id is none.
    """
    url = DESTINATION or url or configured("base_websocket_api_url") or ""
    if _PLACE not in url:
        return url
    workspace = workspace or os.environ.get("DASHSCOPE_WORKSPACE_ID")
    if not workspace:
        raise built(
            InputRequired,
            f"the URL {url} needs a workspace id: pass workspace=..., set DASHSCOPE_WORKSPACE_ID, or call "
            "dashscope.set_region(region, workspace_id).",
        )
    return url.replace(_PLACE, _checked(workspace))


def current_key() -> str:
    """Return the key as it is set now: `api_key`, or the file of `api_key_file_path`, or `~/.dashscope/api_key`.

    Raises:
        InputRequired: There is none.
    """
    key = configured("api_key")
    if key is None:
        path = configured("api_key_file_path") or Path.home() / ".dashscope" / "api_key"
        if Path(path).is_file():
            key = Path(path).read_text(encoding="utf-8").strip()
    if not key:
        raise built(
            InputRequired, "apikey is required! Set the environment variable DASHSCOPE_API_KEY, or dashscope.api_key."
        )
    return key


def endpoint_for(
    url: str, workspace: str | None, headers: Mapping[str, str] | None, api_key: str | None = None
) -> Endpoint:
    """Return an endpoint. Without `api_key` it asks at each dial, so that a new key reaches new connections."""
    from speechpool.synthesis import Endpoint

    # One spelling for each name: two that differ only in case would both be sent. None: not sent, as there.
    given = (headers or {}).items()
    own = {_NAMES.get(name.lower(), name): value for name, value in given if value is not None}
    return Endpoint(url, api_key=api_key or current_key, workspace=workspace, headers=own)


def _url(name: str, host: str, version: str) -> str:
    _, scheme, path = _KINDS[name]
    return f"{scheme}://{host}/{path.format(version=version)}"


def _checked(workspace: str) -> str:
    # It becomes a part of a host name: nothing in it may lead to another host.
    if not _WORKSPACE.fullmatch(workspace):
        raise ValueError(f"Invalid workspace_id {workspace!r}: letters, digits, '-' and '_', at most 64.")
    return workspace
