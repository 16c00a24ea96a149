"""From the errors of speechpool to those that a program of the official SDK expects."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from speechpool.errors import (
    ConnectFailed,
    EndpointDown,
    InvalidText,
    LeaseError,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    SettingsError,
    Shed,
    SpeechPoolError,
    TaskFailed,
)

from .common.error import InputRequired, InvalidTask, ModelRequired, RequestFailure

__all__ = [
    "CallbackError",
    "InputRequired",
    "InvalidTask",
    "ModelRequired",
    "NotConnected",
    "RequestFailure",
    "built",
    "code_of",
    "failure_frame",
    "raised",
    "translated",
]

_Error = TypeVar("_Error", bound=Exception)

WEBSOCKET_ERROR_CODE: Final = 44
"""What the official SDK puts where HTTP would have a status."""


class NotConnected(TimeoutError, ConnectionError):
    """No connection could be had. The official classes raise `TimeoutError` here; `__cause__` tells the true reason."""


class CallbackError(SpeechPoolError):
    """A callback of the program raised something; `__cause__` is what."""


def built(kind: type[_Error], *arguments: Any, **named: Any) -> _Error:
    """Return an error of `kind`, which is also one of the official SDK's where the program has imported that."""
    official = getattr(sys.modules.get("dashscope.common.error"), kind.__name__, None)
    made = kind if official is None or issubclass(kind, official) else _both(cast("Any", kind), official)
    error: _Error = made(*arguments, **named)
    return error


@functools.cache
def _both(kind: Any, official: Any) -> Any:
    def reduced(error: Exception) -> Any:
        return built, (kind, *error.args), vars(error)  # a copy is made anew, where it arrives

    return type(
        kind.__name__, (kind, official), {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduced}
    )


def raised(error: BaseException, request_id: str | None = None) -> BaseException:
    """Return what the caller of an official method expects in place of `error`. Raise it `from error`."""
    if isinstance(error, (TaskFailed, InvalidText, SettingsError, Shed)):
        message = error.message if isinstance(error, TaskFailed) else str(error)
        return built(
            RequestFailure,
            request_id=request_id,
            message=message,
            name=code_of(error),
            http_code=WEBSOCKET_ERROR_CODE,
        )
    if isinstance(error, (ConnectFailed, EndpointDown, PoolTimeout, PoolFull)):
        return NotConnected(f"websocket connection could not established: {error}")
    if isinstance(error, (LeaseError, PoolClosed)):
        return built(InvalidTask, str(error))
    return error  # ConnectionLost is a ConnectionError, FirstAudioTimeout a TimeoutError


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the caller of an official method expects in place of an error of speechpool."""
    try:
        yield
    except SpeechPoolError as error:
        told = raised(error)
        if told is error:  # no error is its own cause
            raise
        raise told from error


def code_of(error: BaseException) -> str:
    """Return the provider's code for an error, or the name of its class where the provider has none."""
    if isinstance(error, TaskFailed):
        return error.code
    if isinstance(error, (InvalidText, SettingsError)):
        return "InvalidParameter"
    if isinstance(error, Shed):
        return "Throttling.RateQuota"
    return type(error).__name__


def failure_frame(error: BaseException, request_id: str | None) -> str:
    """Return the `task-failed` that the server would have sent for an error that was noticed on this side."""
    message = error.message if isinstance(error, TaskFailed) else str(error)
    header = {
        "task_id": request_id or "",
        "event": "task-failed",
        "error_code": code_of(error),
        "error_message": message,
        "attributes": {},
    }
    return json.dumps({"header": header, "payload": {}}, ensure_ascii=False)
