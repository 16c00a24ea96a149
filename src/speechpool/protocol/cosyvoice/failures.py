"""The errors of the server: their words, and what each means for a retry.

Source: DashScope's error code pages and the high-concurrency page (exception 4).
"""

from __future__ import annotations

from typing import Final

__all__ = ["FAILURES", "INVALID_ACTION", "INVALID_PARAMETER", "is_retryable"]

INVALID_PARAMETER: Final = "InvalidParameter"
INVALID_ACTION: Final = (INVALID_PARAMETER, "Invalid action('run-task')! Please follow the protocol!")

_ACCESS_DENIED: Final = "Access denied."
_UNPAID: Final = "Access denied, please make sure your account is in good standing."
_BUSY: Final = "Requests rate limit exceeded, please try again later."
_BURST: Final = "Request rate increased too quickly. Please slow down and try again."
_USED_UP: Final = "Allocated quota exceeded, please increase your quota limit."
_INTERNAL: Final = "An internal error has occurred, please try again later or contact service support."
_AWAY: Final = "The service is temporarily unavailable, please try again later."
_LATE: Final = "The request timed out, please try again later."
_NO_MODEL: Final = "Model not exist."

FAILURES: Final[dict[str, tuple[str, str]]] = {
    INVALID_PARAMETER: (INVALID_PARAMETER, "request parameter is invalid!"),
    # What the engine says comes as a number in the message: bad text, voice and model at odds, bad instruction.
    "411": (INVALID_PARAMETER, "[tts:]Engine return error code: 411"),
    "418": (INVALID_PARAMETER, "[tts:]Engine return error code: 418"),
    "428": (INVALID_PARAMETER, "[tts:]Engine return error code: 428"),
    "CLIENT_ERROR": ("CLIENT_ERROR", "request timeout after 23 seconds."),
    "DataInspectionFailed": ("DataInspectionFailed", "Input data may contain inappropriate content."),
} | {
    code: (code, message)
    for codes, message in (
        (("InvalidApiKey", "NOT AUTHORIZED"), "Invalid API-key provided."),
        (("AccessDenied", "AccessDenied.Unpurchased", "Model.AccessDenied"), _ACCESS_DENIED),
        (("Workspace.AccessDenied", "Endpoint.AccessDenied"), _ACCESS_DENIED),
        (("AllocationQuota.FreeTierOnly",), "The free tier of the model has been exhausted."),
        (("Arrearage", "PrepaidBillOverdue", "PostpaidBillOverdue"), _UNPAID),
        (("CommodityNotPurchased", "isv.OUT_OF_SERVICE"), _UNPAID),
        (("ModelNotFound", "Model.NotExist"), _NO_MODEL),
        (("WorkSpaceNotFound",), "WorkSpace can not be found."),
        (("Throttling",), "Requests throttling triggered."),
        (("Throttling.RateQuota", "LimitRequests", "limit_requests"), _BUSY),
        (("Throttling.BurstRate", "limit_burst_rate"), _BURST),
        (("Throttling.AllocationQuota", "insufficient_quota"), _USED_UP),
        (("Throttling.Concurrency",), "Too many concurrent requests."),
        (("InternalError", "InternalError.Algo", "SystemError", "ModelServiceFailed"), _INTERNAL),
        (("InternalError.Timeout", "RequestTimeOut", "ResponseTimeout", "GatewayTimeout"), _LATE),
        (("ServiceUnavailable", "ModelServingError", "ModelUnavailable"), _AWAY),
    )
    for code in codes
}
"""Code and message of every error that a task can end with, by the code or by the number that the engine gives.

Codes are the provider's. Its messages are where the documentation prints them, and plain words elsewhere.
"""

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
