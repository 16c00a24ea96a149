"""What an error of the server means for a retry.

Source: DashScope's error code pages and the high-concurrency page (exception 4).
"""

from __future__ import annotations

from typing import Final

__all__ = ["INVALID_PARAMETER", "is_retryable"]

INVALID_PARAMETER: Final = "InvalidParameter"

_RETRYABLE_PREFIXES: Final = (
    "Throttling",
    "InternalError",
    "ServiceUnavailable",
    "limit_",
)
_RETRYABLE: Final = frozenset({
    "LimitRequests",
    "SystemError",
    "ModelServiceFailed",
    "RequestTimeOut",
    "ResponseTimeout",
    "ModelServingError",
    "ModelUnavailable",
    "GatewayTimeout",
})  # fmt: skip


def is_retryable(code: str, message: str) -> bool:
    """Whether the same request may succeed with a new id, on a fresh connection.

    The message comes first: `Invalid action('run-task')!` arrives under `InvalidParameter`, and only says that the
    connection was still in a task (a warm connection that idled too long was seen to answer so, too).
    """
    if message.startswith("Invalid action('run-task')"):
        return True
    return code in _RETRYABLE or code.startswith(_RETRYABLE_PREFIXES)
