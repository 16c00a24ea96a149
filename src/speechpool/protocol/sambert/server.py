"""The server's end of Sambert's tasks, on a connection whose order it shares with CosyVoice's."""

from __future__ import annotations

from typing import Final

import msgspec

from speechpool.protocol.cosyvoice import INVALID_PARAMETER, Refused, TaskOrder
from speechpool.protocol.cosyvoice.frames import Parameters, Request, Usage
from speechpool.protocol.cosyvoice.order import FOLLOW, read_instruction
from speechpool.protocol.cosyvoice.states import Step

from .frames import Output, Payload, Span

__all__ = ["INVALID_TEXT", "RunSambert", "SambertSession"]

INVALID_TEXT: Final = (INVALID_PARAMETER, "Request text is invalid!")
"""What the provider says of a task whose text is not where Sambert looks for it, seen by third parties."""


class RunSambert(msgspec.Struct, frozen=True):
    """Speak one whole text."""

    task_id: str
    model: str
    parameters: Parameters
    text: str


class SambertSession:
    """Takes the run-tasks of one connection and makes the frames of their events.

    Args:
        order: Where the connection stands, if another protocol shares it.
    """

    __slots__ = ("order",)

    def __init__(self, *, order: TaskOrder | None = None) -> None:
        self.order = order or TaskOrder()

    def feed(self, data: bytes) -> RunSambert:
        """Take one text frame of the client.

        Raises:
            Malformed: It is no instruction.
            Refused: It is one, but out of order or incomplete; only a run-task is ever in order.
        """
        return self.take(read_instruction(data))

    def take(self, request: Request) -> RunSambert:
        """Take one instruction that was read; see `feed`."""
        action = request.header.action
        if action != "run-task":
            raise Refused(INVALID_PARAMETER, f"Invalid action('{action}')! {FOLLOW}")
        model = self.order.run(request)
        given = request.payload.input
        text = given.text if given is not None else None
        if request.header.streaming != "out" or not text or text.isspace():
            raise Refused(*INVALID_TEXT)
        return RunSambert(self.order.task_id, model, request.payload.parameters or Parameters(), text)

    def started(self) -> bytes:
        """Return `task-started`. From here on only audio and events can come, until the end."""
        frame = self.order.started()
        self.order.take(Step.FINISH, "finish-task")
        return frame

    def sentence(self, span: Span) -> bytes:
        """Return the `result-generated` that tells what is known of a sentence."""
        return self.order.event(Step.GENERATED, Payload(Output(span)))

    def finished(self, characters: int, attributes: dict[str, str] | None = None) -> bytes:
        """Return `task-finished`. Its output is null: the official Python SDK fails on anything else."""
        return self.order.event(Step.FINISHED, Payload(None, Usage(characters)), attributes)

    def failed(self, code: str, message: str) -> bytes:
        """Return `task-failed`. The caller closes the connection after it, as the provider does."""
        return self.order.failed(code, message)
