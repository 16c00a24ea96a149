"""The audio classes under the official names; each package is imported when it is first named."""

from importlib import import_module
from typing import Any

_LATER = ("tts", "tts_v2")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {' and '.join(_LATER)}.")
