"""The speech classes of Alibaba's `dashscope` SDK, on speechpool: change the import, keep the program.

    from speechpool import dashscope
    from speechpool.dashscope.audio.tts_v2 import *

    dashscope.api_key = "..."

`docs/dashscope.md` says what is the same, what is better, and what differs. Only `patch()`, which is for programs whose
imports cannot be changed, imports the official SDK; where a program does, too, our errors are also its errors.

Attributes, which a program may set; what is not set is read from the environment each time it is used:
    api_key: `DASHSCOPE_API_KEY`.
    api_key_file_path: A file that holds the key, where `api_key` is None; `DASHSCOPE_API_KEY_FILE_PATH`.
    base_websocket_api_url: `DASHSCOPE_WEBSOCKET_BASE_URL`, else the one of `DASHSCOPE_API_REGION`.
    base_http_api_url, base_compatible_api_url: Kept for programs that set them; nothing here speaks HTTP.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "api_key",
    "api_key_file_path",
    "base_compatible_api_url",
    "base_http_api_url",
    "base_websocket_api_url",
    "set_region",
]

api_key: str | None
api_key_file_path: str | None
base_websocket_api_url: str
base_http_api_url: str
base_compatible_api_url: str

_LATER = {"audio": "", "common": "", "SpeechSynthesizer": "audio.tts", "patch": "patching", "unpatch": "patching"}
"""What is loaded when it is first named: packages, and what stands in a module of ours."""


def set_region(region: str, workspace_id: str | None = None) -> None:
    """Point the base URLs at a region by its own name, such as `ap-southeast-1`.

    Raises:
        ValueError: The region is unknown, or the workspace id is missing or none.
    """
    from .endpoints import region_urls

    globals().update(region_urls(region, workspace_id))


def __getattr__(name: str) -> Any:
    # What stands in __all__ and was not set: asked of the environment, so that nothing is frozen by an early import.
    if name in __all__:
        from .endpoints import from_environment

        return from_environment(name)
    if name in _LATER:
        module = _LATER[name]
        return getattr(import_module(f".{module}", __name__), name) if module else import_module(f".{name}", __name__)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}: it has the speech classes only; for the rest of DashScope "
        "import the official `dashscope`."
    )
