"""Everything that can go wrong, in one tree.

    SpeechPoolError
    ├── SettingsError          a setting or argument is wrong: fix the call
    ├── InvalidText            the text breaks a rule of the provider: fix the text
    ├── PoolTimeout            no connection became free in time
    ├── PoolFull               too many callers are waiting already
    ├── PoolClosed             the pool is closed, or closes
    ├── EndpointDown           the server has been away for a while: nobody waits for it
    ├── Shed                   refused early, because it could not have been served in time
    ├── ConnectFailed          a connection could not be opened
    │   ├── Unauthorized       401 or 403: the key, the workspace or the region is wrong
    │   └── RateLimited        429: too many handshakes or submissions
    ├── TaskFailed             the server refused or gave up the task
    ├── ConnectionLost         the connection ended while a task ran
    ├── TextGap                no text came for so long that the server would have given the task up
    ├── FirstAudioTimeout      the server owed audio and sent none in time
    ├── ProtocolViolation      the peer broke the protocol
    ├── LeaseError             a lease was used wrongly: returned, foreign, or two tasks at once
    └── WrongLoop              the pool belongs to another event loop

Attributes carry the data, the text is for people: never parse it.
"""

from __future__ import annotations

__all__ = [
    "ConnectFailed",
    "ConnectionLost",
    "EndpointDown",
    "FirstAudioTimeout",
    "InvalidText",
    "LeaseError",
    "PoolClosed",
    "PoolFull",
    "PoolTimeout",
    "ProtocolViolation",
    "RateLimited",
    "SettingsError",
    "Shed",
    "SpeechPoolError",
    "TaskFailed",
    "TextGap",
    "Unauthorized",
    "WrongLoop",
]


class SpeechPoolError(Exception):
    """Base of every error that speechpool raises on purpose.

    Attributes:
        retryable: The same request may succeed when sent again, on a fresh connection.
        audio_delivered: Bytes of audio that reached the caller before the error.
        request_id: The id of the segment on the wire, if one was sent.
        endpoint: Host and path of the endpoint; never the key.
    """

    retryable: bool = False
    audio_delivered: int = 0
    request_id: str | None = None
    endpoint: str | None = None

    def __init__(self, message: str, *, retryable: bool | None = None, endpoint: str | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable
        if endpoint is not None:
            self.endpoint = endpoint


class SettingsError(SpeechPoolError, ValueError):
    """A setting or an argument is out of its range, unknown or missing. Correct the call; nothing was sent."""


class InvalidText(SpeechPoolError, ValueError):
    """The text is empty, too long or of the wrong kind. Correct it; the server has not seen it."""


class PoolTimeout(SpeechPoolError, TimeoutError):
    """No connection became free within the caller's limit.

    Raise `max_size`, shorten the tasks, or accept a longer `borrow_timeout`; the numbers say which.

    Attributes:
        waited: Seconds the caller waited.
        total: Connections of the pool at that moment, of which `idle` and `borrowed`.
        waiting: Callers still waiting.
        last_error: The last failure to open a connection, if there was one since the last success.
        last_error_age: Seconds since then.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        waited: float = 0.0,
        total: int = 0,
        idle: int = 0,
        borrowed: int = 0,
        waiting: int = 0,
        last_error: BaseException | None = None,
        last_error_age: float | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, endpoint=endpoint)
        self.waited = waited
        self.total = total
        self.idle = idle
        self.borrowed = borrowed
        self.waiting = waiting
        self.last_error = last_error
        self.last_error_age = last_error_age


class PoolFull(SpeechPoolError):
    """`max_waiting` callers wait already (or `overflow="fail"` and nothing is idle). Slow down, or raise the limit."""

    retryable = True


class PoolClosed(SpeechPoolError):
    """The pool is closed, drains, or was never entered. Open a new one."""


class EndpointDown(SpeechPoolError):
    """The endpoint cannot be reached, and callers no longer wait for it.

    Attributes:
        cause: The last failure to open a connection.
        age: Seconds since that failure.
    """

    retryable = True

    def __init__(self, message: str, *, cause: BaseException | None, age: float, endpoint: str | None = None) -> None:
        super().__init__(message, endpoint=endpoint)
        self.cause = cause
        self.age = age


class Shed(SpeechPoolError):
    """Refused before anything was sent: the permit or the connection would have come after the deadline.

    Attributes:
        predicted_wait: Seconds the caller would have waited.
    """

    retryable = True

    def __init__(self, message: str, *, predicted_wait: float, endpoint: str | None = None) -> None:
        super().__init__(message, endpoint=endpoint)
        self.predicted_wait = predicted_wait


class ConnectFailed(SpeechPoolError, ConnectionError):
    """A connection could not be opened.

    Attributes:
        status: The HTTP status of a refused handshake, or None where the network, TLS or DNS failed.
        permanent: Trying again cannot help (a wrong host name or certificate, 401, 404): the configuration is wrong.
        retry_after: Seconds the server asked to wait, if it did.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        permanent: bool = False,
        retry_after: float | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, retryable=not permanent, endpoint=endpoint)
        self.status = status
        self.permanent = permanent
        self.retry_after = retry_after


class Unauthorized(ConnectFailed):
    """401 or 403 at the handshake. Check the key, its region and the workspace; it is never retried."""

    def __init__(self, message: str, *, status: int = 401, endpoint: str | None = None) -> None:
        super().__init__(message, status=status, permanent=True, endpoint=endpoint)


class RateLimited(ConnectFailed):
    """429 at the handshake. Wait `retry_after` seconds (None: the server did not say)."""


class TaskFailed(SpeechPoolError):
    """The server answered `task-failed`.

    Attributes:
        code: The provider's error code, e.g. `InvalidParameter` or `Throttling.RateQuota`.
        message: The provider's message.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, endpoint: str | None = None) -> None:
        super().__init__(f"{code}: {message}" if message else code, retryable=retryable, endpoint=endpoint)
        self.code = code
        self.message = message

    @property
    def throttled(self) -> bool:
        """The account or the server is over its limit: slow down before trying again."""
        return self.code.startswith("Throttling") or self.code in {"LimitRequests", "limit_requests"}


class ConnectionLost(SpeechPoolError, ConnectionError):
    """The connection ended in the middle of a task; `audio_delivered` says how much had arrived.

    Attributes:
        close_code: The WebSocket close code, or None after a reset or an end of stream.
    """

    retryable = True

    def __init__(self, message: str, *, close_code: int | None = None, endpoint: str | None = None) -> None:
        super().__init__(message, endpoint=endpoint)
        self.close_code = close_code
        # 1007: the server found our frame malformed, and would again (protocol notes, errors and retrying).
        self.retryable = close_code != 1007


class FirstAudioTimeout(SpeechPoolError, TimeoutError):
    """The server owed something (a start, the first audio, the next audio, the end) and did not send it in time.

    Attributes:
        phase: `start`, `first_audio`, `gap` or `total`.
        limit: The deadline in seconds.
    """

    retryable = True

    def __init__(self, message: str, *, phase: str, limit: float, endpoint: str | None = None) -> None:
        super().__init__(message, endpoint=endpoint)
        self.phase = phase
        self.limit = limit


class TextGap(SpeechPoolError):
    """No text came for so long that the server would soon have given the task up, and the task was not to be bridged.

    Send in time, finish the task and start another one for later text, or leave `bridge` on.

    Attributes:
        limit: Seconds that may pass without text.
    """

    def __init__(self, message: str, *, limit: float, endpoint: str | None = None) -> None:
        super().__init__(message, endpoint=endpoint)
        self.limit = limit


class ProtocolViolation(SpeechPoolError):
    """A frame that the protocol does not allow here, or that cannot be read. The connection is discarded."""

    retryable = True


class LeaseError(SpeechPoolError):
    """A lease or task was used after its return, from two tasks at once, or in an order that makes no sense."""


class WrongLoop(SpeechPoolError):
    """The pool was opened on another event loop. Open one pool per loop, or use `SpeechPool` from threads."""
