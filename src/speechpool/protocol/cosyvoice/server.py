"""The server's end of one connection: instructions in, frames out."""

from __future__ import annotations

import msgspec

from speechpool.protocol.events import Word

from .failures import INVALID_PARAMETER
from .frames import Output, Parameters, ReplyPayload, Request, Sentence, Usage, input_members
from .order import FOLLOW, Refused, TaskOrder, read_instruction
from .states import State, Step

__all__ = [
    "CancelTask",
    "ContinueTask",
    "FinishTask",
    "FlushTask",
    "Instruction",
    "LateCancel",
    "RunTask",
    "ServerSession",
]


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
    """A cancel that crossed the end of its task on the way, or a finish after a cancel: there is nothing to do."""


Instruction = RunTask | ContinueTask | FlushTask | FinishTask | CancelTask | LateCancel
"""Everything that `ServerSession.feed` can answer."""


class ServerSession:
    """Takes the instructions of one connection's tasks and makes the frames of its events.

    Args:
        older_events: Send `result-generated` without `type` and `usage`, as the first version of the protocol did.
        order: Where the connection stands, if another protocol shares it.
    """

    __slots__ = ("_cancelled", "_older_events", "order")

    def __init__(self, *, older_events: bool = False, order: TaskOrder | None = None) -> None:
        self.order = order or TaskOrder()
        self._cancelled = False  # the present task, or the last one
        self._older_events = older_events

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self.order.state

    @property
    def task_id(self) -> str:
        """The id of the present task, or of the last one."""
        return self.order.task_id

    # ---------------------------------------------------------------------------------- instructions
    def feed(self, data: bytes) -> Instruction:
        """Take one text frame of the client.

        Raises:
            Malformed: It is no instruction.
            Refused: It is one, but out of order, for another task or incomplete.
        """
        return self.take(read_instruction(data), data)

    def take(self, request: Request, data: bytes) -> Instruction:
        """Take one instruction that was read from `data`; see `feed`."""
        if request.header.action == "run-task":
            return self._run(request, data)
        return self._continue(request)

    def _run(self, request: Request, data: bytes) -> RunTask:
        model = self.order.run(request)
        self._cancelled = False
        if input_members(data):
            # The reference asks for an empty object, and names this message (or a close with 1007) for anything else.
            raise Refused(INVALID_PARAMETER, "task can not be null")
        return RunTask(self.task_id, model, request.payload.parameters or Parameters())

    def _continue(self, request: Request) -> Instruction:
        action = request.header.action
        given = request.payload.input
        if not self.task_id or request.header.task_id != self.task_id:
            raise Refused(INVALID_PARAMETER, f"Invalid task_id for {action}! {FOLLOW}")
        if given is None:
            raise Refused(INVALID_PARAMETER, f"Missing required parameter 'payload.input'! {FOLLOW}")
        if action == "finish-task":
            return self._finish(cancel=given.directive == "cancel")
        if given.flush:
            self.order.take(Step.FLUSH, action)
            return FlushTask()
        self.order.take(Step.TEXT, action)
        if not given.text or given.text.isspace():
            raise Refused(INVALID_PARAMETER, "Please ensure input text is valid.")
        return ContinueTask(given.text)

    def _finish(self, *, cancel: bool) -> Instruction:
        # A cancel may cross the end of the task. A finish cannot, as only a finish or a cancel brings that about; yet
        # in a client with threads one may finish what another has just cancelled.
        if self.state is State.IDLE and (cancel or self._cancelled):
            return LateCancel()
        self.order.take(Step.CANCEL if cancel else Step.FINISH, "finish-task")
        self._cancelled = cancel
        return CancelTask() if cancel else FinishTask()

    # ---------------------------------------------------------------------------------- events
    def started(self) -> bytes:
        """Return `task-started`."""
        return self.order.started()

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
        payload = {"output": {"sentence": {"words": []}}, "usage": {"characters": characters}}
        return self.order.event(Step.FINISHED, payload, attributes)

    def failed(self, code: str, message: str) -> bytes:
        """Return `task-failed`. The caller closes the connection after it, as the provider does."""
        return self.order.failed(code, message)

    def _generated(
        self,
        kind: str,
        index: int,
        *,
        text: str | None = None,
        words: tuple[Word, ...] = (),
        usage: Usage | None = None,
    ) -> bytes:
        if self._older_events:
            return self.order.event(Step.GENERATED, {"output": {"sentence": {"words": words}}, "usage": None})
        return self.order.event(Step.GENERATED, ReplyPayload(Output(kind, text, Sentence(index, words)), usage))
