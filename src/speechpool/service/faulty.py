"""Acting out faults: a middleman between one connection and its session, who knows both and tells neither.

    transport ◀──owner── FaultySession ──▶ SpeechSession
    transport ◀───────── _FaultyConnection ◀───┘

It stands there only on a service that has faults of sessions; without them not even a comparison is made for a frame.
The phases are read off the frames that pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from speechpool.protocol.cosyvoice import FAILURES, INVALID_ACTION
from speechpool.transport import Closed, Connection, Frame

from .fault_kinds import CANCELLING, FINISHED, FINISHING, FIRST_AUDIO, IDLE, MID_AUDIO, STARTED, STARTING

if TYPE_CHECKING:
    from speechpool.transport import ServedOwner

    from .faults import Fault, Faults
    from .session import SpeechSession

__all__ = ["FaultySession", "with_faults"]

_CANCEL: Final = re.compile(rb'"directive"\s*:\s*"cancel"').search  # within a text its quotes would be escaped
_FOREIGN: Final = "0" * 32
_NOISE: Final = bytes(1600)
"""Audio where none has been sent yet: 50 ms of silence as 16-bit PCM of 16,000 Hz."""


def with_faults(session: SpeechSession, faults: Faults | None) -> ServedOwner:
    """Return who is to own the connection of `session`: itself, where no fault can strike a session."""
    return FaultySession(session, faults) if faults is not None and faults.strike_sessions else session


class FaultySession:
    """The owner of one accepted connection, who passes everything on to `session`, except what faults change.

    Args:
        session: The one that behaves.
        faults: What goes wrong.
    """

    def __init__(self, session: SpeechSession, faults: Faults) -> None:
        self._session = session
        self._faults = faults
        self._wire: _FaultyConnection

    def on_connected(self, connection: Connection) -> None:
        """Take the connection, and hand on one that misbehaves."""
        self._wire = _FaultyConnection(connection, self._session, self._faults)
        self._session.on_connected(self._wire)
        self._wire.meet(IDLE)

    def on_text(self, data: bytes) -> None:
        """Pass an instruction on."""
        self._wire.listen(data)
        self._session.on_text(data)

    def on_binary(self, data: bytes) -> None:
        """Pass a frame on that will be refused."""
        self._session.on_binary(data)

    def on_closed(self, closed: Closed) -> None:
        """End."""
        self._wire.end()
        self._session.on_closed(closed)


class _FaultyConnection:
    """What the session takes for its connection."""

    def __init__(self, connection: Connection, session: SpeechSession, faults: Faults) -> None:
        self._connection = connection
        self._session = session
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: list[Frame] | None = None  # what a delay holds back
        self._silent = False
        self._failed = False  # by a fault: nothing but task-failed passes any more
        self._mangle: Callable[[bytes], bytes] | None = None  # for the next event
        # The task that passes.
        self._cancelled = self._announced = self._sounded = False
        self._event = b""
        self._audio: tuple[Frame, ...] = ((True, _NOISE),)  # the last one, with its announcement

    # ---------------------------------------------------------------------------------- the connection of the session
    @property
    def closed(self) -> Closed | None:
        """See `Connection`."""
        return self._connection.closed

    def send_all(self, frames: Sequence[Frame]) -> None:
        """Send frame by frame, as each may be the moment of a fault."""
        for binary, data in frames:
            if binary:
                self._pass_audio(data)
            else:
                self._pass_event(data)

    async def drain(self) -> None:
        """See `Connection`."""
        await self._connection.drain()

    def pause(self) -> None:
        """See `Connection`."""
        self._connection.pause()

    def resume(self) -> None:
        """See `Connection`."""
        self._connection.resume()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """See `Connection`. What a delay holds back goes first."""
        self._release()
        self._connection.close(code, reason)

    def abort(self) -> None:
        """See `Connection`."""
        self._connection.abort()

    def end(self) -> None:
        """Forget what was to come later; the connection is gone."""
        for timer in self._timers:
            timer.cancel()

    # ---------------------------------------------------------------------------------- the moments
    def listen(self, data: bytes) -> None:
        """Notice a cancel on its way in."""
        self._cancelled = self._cancelled or _CANCEL(data) is not None

    def meet(self, phase: str) -> None:
        """Let the faults of `phase` strike."""
        for fault in self._faults.at(phase):
            _STRIKES[fault.kind](self, fault)

    def _pass_event(self, data: bytes) -> None:
        name = msgspec.json.decode(data)["header"]["event"]
        if name == "task-started":
            self._cancelled = self._announced = self._sounded = False
            self.meet(STARTING)
        elif name == "task-finished":
            self.meet(CANCELLING if self._cancelled else FINISHING)
        elif name == "result-generated" and not self._announced:
            self._announced = True
            self.meet(FIRST_AUDIO)
        if self._failed and name != "task-failed":
            return
        self._event = data
        mangle, self._mangle = self._mangle, None
        self._send((False, mangle(data) if mangle else data))
        if name == "task-started":
            self.meet(STARTED)
        elif name == "task-finished":
            self.meet(FINISHED)

    def _pass_audio(self, data: bytes) -> None:
        if self._failed:
            return
        self._audio = ((False, self._event), (True, data))
        self._send((True, data))
        if not self._sounded:
            self._sounded = True
            self.meet(MID_AUDIO)

    def _send(self, *frames: Frame) -> None:
        if self._silent or self._connection.closed is not None:
            return
        if self._held is not None:
            self._held += frames
        else:
            self._connection.send_all(frames)

    def _release(self) -> None:
        held, self._held = self._held, None
        if held:
            self._send(*held)

    def _later(self, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        def act() -> None:
            self._timers.discard(timer)
            call(*arguments)

        timer = self._loop.call_later(seconds, act)
        self._timers.add(timer)

    # ---------------------------------------------------------------------------------- the faults
    def stall(self, fault: Fault) -> None:
        """Send nothing more."""
        self._silent = True

    def drop(self, fault: Fault) -> None:
        """Drop the socket."""
        self._connection.abort()

    def shut(self, fault: Fault) -> None:
        """Close the connection."""
        self.close(int(fault.value), "a fault that was asked for")

    def fail(self, fault: Fault) -> None:
        """Fail the task, and what the session does not say about it any more is lost."""
        self._failed = True
        self._session.fail(*_FAILURES.get(fault.kind) or FAILURES[fault.code])

    def delay(self, fault: Fault) -> None:
        """Hold back all that is sent."""
        if self._held is None:
            self._held = []
            self._later(fault.value, self._release)

    def slow_read(self, fault: Fault) -> None:
        """Read nothing for a while."""
        self._connection.pause()
        self._later(fault.value, self._connection.resume)

    def early_audio(self, fault: Fault) -> None:
        """Send audio that nobody announced."""
        self._send((True, _NOISE))

    def late_audio(self, fault: Fault) -> None:
        """Send the last audio once more, after task-finished has left."""
        self._later(fault.value, self._send, *self._audio)

    def duplicate_finish(self, fault: Fault) -> None:
        """Send task-finished once more."""
        self._later(fault.value, self._send, (False, self._event))

    def wrong_id(self, fault: Fault) -> None:
        """Let the next event name another task."""
        self._mangle = _of_another_task

    def broken_json(self, fault: Fault) -> None:
        """Cut the next event in two."""
        self._mangle = _half


def _of_another_task(event: bytes) -> bytes:
    reply: dict[str, Any] = msgspec.json.decode(event)
    reply["header"]["task_id"] = _FOREIGN
    return msgspec.json.encode(reply)


def _half(event: bytes) -> bytes:
    return event[: len(event) // 2]


_FAILURES: Final = {"throttle": FAILURES["Throttling.RateQuota"], "invalid-action": INVALID_ACTION}
_STRIKES: Final[dict[str, Callable[[_FaultyConnection, Fault], None]]] = {
    "stall": _FaultyConnection.stall,
    "drop": _FaultyConnection.drop,
    "close": _FaultyConnection.shut,
    "throttle": _FaultyConnection.fail,
    "fail": _FaultyConnection.fail,
    "invalid-action": _FaultyConnection.fail,
    "delay": _FaultyConnection.delay,
    "slow-read": _FaultyConnection.slow_read,
    "early-audio": _FaultyConnection.early_audio,
    "late-audio": _FaultyConnection.late_audio,
    "duplicate-finish": _FaultyConnection.duplicate_finish,
    "wrong-id": _FaultyConnection.wrong_id,
    "broken-json": _FaultyConnection.broken_json,
}
