"""The order of tasks on one connection, seen from the server, and the frames that all its protocols share."""

from __future__ import annotations

from typing import Final

import msgspec

from speechpool.errors import ProtocolViolation

from .failures import INVALID_PARAMETER
from .frames import ReplyHeader, Request, decode_request, encode
from .states import TABLE, State, Step

__all__ = ["FOLLOW", "Malformed", "Refused", "TaskOrder", "read_instruction"]

FOLLOW: Final = "Please follow the protocol!"
_ACTIONS: Final = ("run-task", "continue-task", "finish-task")


class Malformed(ProtocolViolation):
    """A frame that is no instruction at all. The connection is closed with code 1007."""


class Refused(ProtocolViolation):
    """An instruction that the server refuses: answer `failed(code, message)`, then close.

    Attributes:
        code: The provider's error code.
        message: The provider's words.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def read_instruction(data: bytes) -> Request:
    """Read one text frame of a client.

    Raises:
        Malformed: It is no instruction.
    """
    try:
        request = decode_request(data)
    except ProtocolViolation as error:
        raise Malformed(str(error)) from None
    if request.header.action not in _ACTIONS:
        raise Malformed(f"the action is none of {', '.join(_ACTIONS)}.")
    return request


class TaskOrder:
    """Walks the table of states for the tasks of one connection, one after another.

    An id may come again in a later task: what the provider makes of that is unknown, and the official SDK does it.

    Attributes:
        state: Where the connection stands.
        task_id: The id of the present task, or of the last one.
    """

    __slots__ = ("state", "task_id")

    def __init__(self) -> None:
        self.state = State.IDLE
        self.task_id = ""

    # ---------------------------------------------------------------------------------- instructions
    def run(self, request: Request) -> str:
        """Take a run-task, and return its model.

        Raises:
            Refused: A task runs, or something is missing.
        """
        # Known from here on, so that a refusal names the task it is about; one that still runs ends along with it.
        self.task_id = request.header.task_id
        self.take(Step.RUN, "run-task")
        if not self.task_id:
            raise _missing("header.task_id")
        if request.payload.input is None:
            raise _missing("payload.input")
        if not request.payload.model:
            raise _missing("payload.model")
        return request.payload.model

    def take(self, step: Step, action: str) -> None:
        """Take a step of the client.

        Raises:
            Refused: It is out of order.
        """
        state = TABLE[self.state].get(step)
        if state is None:
            raise Refused(INVALID_PARAMETER, f"Invalid action('{action}')! {FOLLOW}")
        self.state = state

    # ---------------------------------------------------------------------------------- events
    def started(self) -> bytes:
        """Return `task-started`."""
        return self.event(Step.STARTED, {})

    def failed(self, code: str, message: str) -> bytes:
        """Return `task-failed`. The caller closes the connection after it, as the provider does."""
        self.state = State.DEAD
        header = ReplyHeader(Step.FAILED.value, self.task_id, code, message, attributes={})
        return encode({"header": header, "payload": {}})

    def event(self, step: Step, payload: object, attributes: dict[str, str] | None = None) -> bytes:
        """Take a step of the server, and return its event.

        Raises:
            ProtocolViolation: It is out of order.
        """
        state = TABLE[self.state].get(step)
        if state is None:
            raise ProtocolViolation(f"the server may not send {step.value} in state {self.state.name}.")
        self.state = state
        return encode(Event(ReplyHeader(step.value, self.task_id, attributes=attributes or {}), payload))


class Event(msgspec.Struct):
    """One event, whatever its payload."""

    header: ReplyHeader
    payload: object


def _missing(field: str) -> Refused:
    return Refused(INVALID_PARAMETER, f"Missing required parameter '{field}'! {FOLLOW}")
