"""How a call went, in the form of the official SDK: a dictionary whose items are attributes, too.

Source: `api_entities/dashscope_response.py` and `websocket_request.py` of the official SDK 2.0.2. A call never raises
for what the server or the network does: the response has a status other than 200.
"""

from __future__ import annotations

import json
from typing import Any, Final

from speechpool.dashscope.errors import WEBSOCKET_ERROR_CODE, code_of
from speechpool.errors import ConnectFailed, EndpointDown, InvalidText, SettingsError, Shed, TaskFailed

__all__ = ["OK", "SpeechSynthesisResponse", "completed", "failed"]

OK: Final = 200
_NO_STATUS: Final = -1
_REFUSALS: Final = {
    401: "Unauthorized, your api-key is invalid!",
    403: "Unauthorized, your api-key is invalid!",
    503: "Service temporarily unavailable, possibly overloaded or not ready.",
}


class _Attributes(dict[str, Any]):
    """A dictionary whose items are attributes, too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value


class SpeechSynthesisResponse(_Attributes):
    """`status_code`, `request_id`, `code`, `message`, `output`, `usage` and `headers`.

    `status_code` is 200, 44 for what the server said against the task, the HTTP status of a refused handshake, or -1.
    """

    __slots__ = ()

    def __init__(
        self,
        status_code: int,
        request_id: str | None = "",
        code: str | int = "",
        message: str = "",
        usage: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            status_code=status_code,
            request_id=request_id,
            code=code,
            message=message,
            output=None,
            usage=usage and _Attributes(usage),
            headers=None,
        )

    def __str__(self) -> str:
        return json.dumps({name: value for name, value in self.items() if name != "headers"}, ensure_ascii=False)


def completed(request_id: str | None, characters: int) -> SpeechSynthesisResponse:
    """Return the response of a call that went well."""
    return SpeechSynthesisResponse(OK, request_id, usage={"characters": characters})


def failed(error: Exception, request_id: str | None) -> SpeechSynthesisResponse:
    """Return the response of a call that did not."""
    refusal = error.cause if isinstance(error, EndpointDown) else getattr(error, "last_error", None)
    if isinstance(refusal, ConnectFailed):
        error = refusal  # the pool has tried again for a while, and this is what it heard last
    if isinstance(error, (TaskFailed, InvalidText, SettingsError, Shed)):
        message = error.message if isinstance(error, TaskFailed) else str(error)
        return SpeechSynthesisResponse(WEBSOCKET_ERROR_CODE, request_id or "", code_of(error), message)
    if isinstance(error, ConnectFailed) and error.status is not None:
        return SpeechSynthesisResponse(error.status, None, error.status, _REFUSALS.get(error.status, str(error)))
    if isinstance(error, (ConnectFailed, EndpointDown)):
        return SpeechSynthesisResponse(_NO_STATUS, "", "ClientConnectorError", str(error))
    return SpeechSynthesisResponse(_NO_STATUS, "", "Unknown", f"Error type: {type(error)}, message: {error}")
