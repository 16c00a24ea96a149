"""The errors of the official SDK that speech can meet, under its names (source: its `common/error.py`, 2.0.2).

Where a program imports the official module, too, what is raised is also an instance of the official class.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "DashScopeException",
    "InputRequired",
    "InvalidParameter",
    "InvalidTask",
    "ModelRequired",
    "RequestFailure",
    "TimeoutException",
    "UnsupportedModel",
]


class DashScopeException(Exception):
    """Base of all of them."""


class AuthenticationError(DashScopeException):
    """There is no key."""


class InvalidParameter(DashScopeException):
    """An argument is wrong."""


class InvalidTask(DashScopeException):
    """A call came in the wrong order: the task has not begun, runs already, or has stopped."""


class ModelRequired(DashScopeException):
    """There is no model."""


class UnsupportedModel(DashScopeException):
    """The model cannot do this."""


class InputRequired(DashScopeException):
    """An argument is missing."""


class TimeoutException(DashScopeException):
    """Something took too long. Speech raises the builtin `TimeoutError`, as the official classes do."""


class RequestFailure(DashScopeException):
    """The server refused the task or gave it up.

    Attributes:
        request_id: The id of the task.
        message: The provider's words.
        name: The provider's error code, e.g. `InvalidParameter`.
        http_code: 44 for everything that came over a WebSocket.
    """

    def __init__(
        self,
        request_id: str | None = None,
        message: str | None = None,
        name: str | None = None,
        http_code: int | None = None,
    ) -> None:
        super().__init__(request_id, message, name, http_code)
        self.request_id = request_id
        self.message = message
        self.name = name
        self.http_code = http_code

    def __str__(self) -> str:
        return (
            f"Request failed, request_id: {self.request_id}, http_code: {self.http_code} error_name: {self.name}, "
            f"error_message: {self.message}"
        )
