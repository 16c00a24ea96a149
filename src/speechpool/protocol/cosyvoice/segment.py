"""What every segment of `/api-ws/v1/inference` does on the client's side, whichever protocol it speaks."""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from speechpool.errors import ProtocolViolation
from speechpool.protocol.events import Event, Failed, Started

from .failures import is_retryable
from .frames import ReplyHeader
from .states import TABLE, State, Step

__all__ = ["NOTHING", "InferenceSegment", "server_request_id"]

NOTHING: Final[tuple[Event, ...]] = ()

_EVENTS: Final = {step.value: step for step in (Step.STARTED, Step.GENERATED, Step.FINISHED, Step.FAILED)}
_LAST: Final = frozenset({Step.FINISHED.value, Step.FAILED.value})
_TAKES_AUDIO: Final = frozenset({State.RUNNING, State.FINISHING})


class _Reply(Protocol):
    @property
    def header(self) -> ReplyHeader: ...


_R = TypeVar("_R", bound=_Reply)


class InferenceSegment(Generic[_R]):
    """Matches events to its id, walks the table of states, and tells start and failure. The rest is the protocol's."""

    __slots__ = ("announced", "before", "ended", "id", "mixed_up", "state", "stray", "takes_audio")

    def __init__(self, segment_id: str) -> None:
        self.id = segment_id
        self.state = State.IDLE
        self.takes_audio = False
        self.ended = False
        self.stray = False
        self.mixed_up = False
        self.announced = 0
        self.before: str | None = None

    def feed(self, data: bytes) -> tuple[Event, ...]:
        """Take one text frame and return its events; see `Segment.feed`."""
        reply = self._read(data)
        header = reply.header
        if header.task_id != self.id:
            # A late event of an earlier task. It means nothing to this one, but the connection is not in order.
            self.stray = True
            # Nothing follows the end of the task before, so no audio of it.
            self.mixed_up |= header.task_id != self.before or header.event not in _LAST
            return NOTHING
        step = _EVENTS.get(header.event)
        if step is None:
            return NOTHING  # an event that a later version of the protocol has
        if TABLE[self.state].get(step) is not self.state or self.ended:
            self._step(step)
        if step is Step.GENERATED:
            return self._generated(reply)
        if step is Step.STARTED:
            self._accepted()
            return (Started(server_request_id(header)),)
        self.ended = True
        if step is Step.FINISHED:
            return self._finished(reply)
        code, message = header.error_code or "Unknown", header.error_message or ""
        return (Failed(code, message, is_retryable(code, message)),)

    def _step(self, step: Step) -> None:
        state = TABLE[self.state].get(step)
        # An ended segment is back in IDLE, where the connection may start the next task, but this id may not.
        if state is None or self.ended:
            name = "after its end" if self.ended else f"in state {self.state.name}"
            raise ProtocolViolation(f"{step.value} is not allowed {name} (segment {self.id}).")
        self.state = state
        self.takes_audio = state in _TAKES_AUDIO

    def _read(self, data: bytes) -> _R:
        """Read one event."""
        raise NotImplementedError

    def _accepted(self) -> None:
        """The server has started the task."""

    def _generated(self, reply: _R) -> tuple[Event, ...]:
        """Return what a `result-generated` means."""
        raise NotImplementedError

    def _finished(self, reply: _R) -> tuple[Event, ...]:
        """Return what `task-finished` means."""
        raise NotImplementedError


def server_request_id(header: ReplyHeader) -> str | None:
    """Return the server's own name for the task, where it gave one."""
    value = header.attributes.get("request_uuid") if header.attributes else None
    return value if isinstance(value, str) else header.request_id
