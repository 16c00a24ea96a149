"""The server's end of one connection: instructions in, frames out."""

from __future__ import annotations

from typing import Final

import msgspec

from speechpool.errors import ProtocolViolation
from speechpool.protocol.events import Word

from .failures import INVALID_PARAMETER
from .frames import (
    Output,
    Parameters,
    Reply,
    ReplyHeader,
    ReplyPayload,
    Request,
    Sentence,
    Usage,
    decode_request,
    encode,
)
from .states import TABLE, State, Step

__all__ = [
    "CancelTask",
    "ContinueTask",
    "FinishTask",
    "FlushTask",
    "Instruction",
    "LateCancel",
    "Malformed",
    "Refused",
    "RunTask",
    "ServerSession",
]

_ACTIONS: Final = ("run-task", "continue-task", "finish-task")
_FOLLOW: Final = "Please follow the protocol!"


class RunTask(msgspec.Struct, frozen=True):
    """Start a task."""

    task_id: str
    model: str
    parameters: Parameters


class ContinueTask(msgspec.Struct, frozen=True, gc=False):
    """One more piece of text."""

    text: str


class FlushTask(msgspec.Struct, frozen=True, gc=False):
    """Speak what is buffered, and keep the task open."""


class FinishTask(msgspec.Struct, frozen=True, gc=False):
    """No more text: speak the rest, then end."""


class CancelTask(msgspec.Struct, frozen=True, gc=False):
    """End now, without more audio."""


class LateCancel(msgspec.Struct, frozen=True, gc=False):
    """A cancel that crossed the end of its task on the way: there is nothing to do."""


Instruction = RunTask | ContinueTask | FlushTask | FinishTask | CancelTask | LateCancel
"""Everything that `ServerSession.feed` can answer."""


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


class ServerSession:
    """Walks the table of states for one connection and makes the frames of its tasks."""

    __slots__ = ("state", "task_id")

    def __init__(self) -> None:
        self.state = State.IDLE
        self.task_id = ""

    # ---------------------------------------------------------------------------------- instructions
    def feed(self, data: bytes) -> Instruction:
        """Take one text frame of the client.

        Raises:
            Malformed: It is no instruction.
            Refused: It is one, but out of order, for another task or incomplete.
        """
        try:
            request = decode_request(data)
        except ProtocolViolation as error:
            raise Malformed(str(error)) from None
        if request.header.action not in _ACTIONS:
            raise Malformed(f"the action {request.header.action[:40]!r} is unknown.")
        if request.header.action == "run-task":
            return self._run(request)
        return self._continue(request)

    def _run(self, request: Request) -> RunTask:
        if self.state is State.IDLE:
            # Known from here on, so that a refusal names the task it is about.
            self.task_id = request.header.task_id
        self._order(Step.RUN, "run-task")
        payload = request.payload
        if not self.task_id:
            raise Refused(INVALID_PARAMETER, f"Missing required parameter 'header.task_id'! {_FOLLOW}")
        if payload.input is None:
            raise Refused(INVALID_PARAMETER, f"Missing required parameter 'payload.input'! {_FOLLOW}")
        if not payload.model:
            raise Refused(INVALID_PARAMETER, f"Missing required parameter 'payload.model'! {_FOLLOW}")
        return RunTask(self.task_id, payload.model, payload.parameters or Parameters())

    def _continue(self, request: Request) -> Instruction:
        action = request.header.action
        given = request.payload.input
        if request.header.task_id != self.task_id:
            raise Refused(INVALID_PARAMETER, f"Invalid task_id for {action}! {_FOLLOW}")
        if given is None:
            raise Refused(INVALID_PARAMETER, f"Missing required parameter 'payload.input'! {_FOLLOW}")
        if action == "finish-task":
            if given.directive == "cancel":
                if self.state is State.IDLE:
                    return LateCancel()
                self._order(Step.CANCEL, action)
                return CancelTask()
            self._order(Step.FINISH, action)
            return FinishTask()
        if given.flush:
            self._order(Step.FLUSH, action)
            return FlushTask()
        self._order(Step.TEXT, action)
        if not given.text or given.text.isspace():
            raise Refused(INVALID_PARAMETER, "Please ensure input text is valid.")
        return ContinueTask(given.text)

    def _order(self, step: Step, action: str) -> None:
        state = TABLE[self.state].get(step)
        if state is None:
            raise Refused(INVALID_PARAMETER, f"Invalid action('{action}')! {_FOLLOW}")
        self.state = state

    # ---------------------------------------------------------------------------------- events
    def started(self) -> bytes:
        """Return `task-started`."""
        self._move(Step.STARTED)
        return self._frame(Step.STARTED, {})

    def sentence_begin(self, index: int, text: str) -> bytes:
        """Return the `result-generated` that opens a sentence."""
        return self._generated("sentence-begin", index, text=text)

    def sentence_synthesis(self, index: int) -> bytes:
        """Return the `result-generated` that announces exactly one binary frame."""
        return self._generated("sentence-synthesis", index)

    def sentence_end(self, index: int, text: str, words: tuple[Word, ...], characters: int) -> bytes:
        """Return the `result-generated` that closes a sentence; `characters` is the task's running total."""
        return self._generated("sentence-end", index, text=text, words=words, usage=Usage(characters))

    def finished(self, characters: int, attributes: dict[str, str] | None = None) -> bytes:
        """Return `task-finished`. The connection may carry the next task."""
        self._move(Step.FINISHED)
        payload = {"output": {"sentence": {"words": []}}, "usage": {"characters": characters}}
        return self._frame(Step.FINISHED, payload, attributes)

    def failed(self, code: str, message: str) -> bytes:
        """Return `task-failed`. The caller closes the connection after it, as the provider does."""
        self.state = State.DEAD
        header = ReplyHeader(Step.FAILED.value, self.task_id, code, message, attributes={})
        return encode({"header": header, "payload": {}})

    def _generated(
        self,
        kind: str,
        index: int,
        *,
        text: str | None = None,
        words: tuple[Word, ...] = (),
        usage: Usage | None = None,
    ) -> bytes:
        self._move(Step.GENERATED)
        output = Output(kind, text, Sentence(index, words))
        return encode(
            Reply(ReplyHeader(Step.GENERATED.value, self.task_id, attributes={}), ReplyPayload(output, usage))
        )

    def _frame(self, step: Step, payload: object, attributes: dict[str, str] | None = None) -> bytes:
        return encode(
            {"header": ReplyHeader(step.value, self.task_id, attributes=attributes or {}), "payload": payload}
        )

    def _move(self, step: Step) -> None:
        state = TABLE[self.state].get(step)
        if state is None:
            raise ProtocolViolation(f"the server may not send {step.value} in state {self.state.name}.")
        self.state = state
