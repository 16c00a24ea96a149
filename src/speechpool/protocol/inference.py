"""CosyVoice, Qwen-Audio-TTS and Sambert over the same connections of `/api-ws/v1/inference`, both ends.

The client goes by the voice's model; the server goes by `header.streaming` of a task's run-task.
"""

from __future__ import annotations

from .cosyvoice import TEXT_GAP, CosyVoice, Instruction, ServerSession, State, TaskOrder
from .cosyvoice.order import read_instruction
from .dialect import Dialect
from .models import is_sambert
from .sambert import RunSambert, Sambert, SambertSession
from .voice import Voice

__all__ = ["Inference", "InferenceSession"]


class Inference(CosyVoice):
    """The dialect of connections that carry both. A task speaks Sambert where its model does, else CosyVoice.

    Args:
        text_gap: See `CosyVoice`.
    """

    name = "inference"

    def __init__(self, *, text_gap: float | None = TEXT_GAP) -> None:
        super().__init__(text_gap=text_gap)
        self._cosyvoice, self._sambert = CosyVoice(text_gap=text_gap), Sambert()

    def for_voice(self, voice: Voice) -> Dialect:
        """Return the dialect of the voice's model."""
        return self._sambert if is_sambert(voice.model) else self._cosyvoice


class InferenceSession:
    """The server's end of one connection: hands each instruction to the protocol whose task runs.

    Args:
        older_events: See `ServerSession`.

    Attributes:
        order: Where the connection stands.
        cosyvoice: Makes the events of CosyVoice's tasks.
        sambert: Makes those of Sambert's.
    """

    __slots__ = ("_out", "cosyvoice", "order", "sambert")

    def __init__(self, *, older_events: bool = False) -> None:
        self.order = TaskOrder()
        self.cosyvoice = ServerSession(older_events=older_events, order=self.order)
        self.sambert = SambertSession(order=self.order)
        self._out = False  # the present task, or the last one, is Sambert's

    def feed(self, data: bytes) -> Instruction | RunSambert:
        """Take one text frame of the client.

        Raises:
            Malformed: It is no instruction.
            Refused: It is one, but out of order, for another task or incomplete.
        """
        request = read_instruction(data)
        if request.header.action == "run-task" and self.order.state is State.IDLE:
            self._out = request.header.streaming == "out" or is_sambert(request.payload.model or "")
        return self.sambert.take(request) if self._out else self.cosyvoice.take(request, data)

    def started(self) -> bytes:
        """Return `task-started`."""
        return self.sambert.started() if self._out else self.cosyvoice.started()
