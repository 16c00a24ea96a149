"""A WebSocket over picows, the same class at both ends.

What picows leaves to its user is done here: it delivers fragments one by one, answers no close frame, drops what is
sent after a close without a word, has no flow control of its own, does not say when it closed because of a broken
frame (`WebSocketConnection.closed` finds out), and lends payloads that die with the callback.

Order matters in one place: `closed` is set before the owner hears of it, and nothing reaches the owner afterwards, even
where picows has more frames of the same read to deliver (tests/transport/test_contract.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import getrandbits
from struct import Struct

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from speechpool.errors import ConnectionLost

from .connection import Closed, Frame, Owner
from .heartbeat import Heartbeat
from .logs import logger

__all__ = ["CLOSING_LIMIT", "MAX_MESSAGE", "WRITE_LIMIT", "WebSocketConnection"]

MAX_MESSAGE = 16 * 2**20
"""Bytes of the longest message that is taken; a longer one closes the connection with 1009."""

WRITE_LIMIT = 256 * 1024
"""Bytes that may wait in user space before `drain` waits; it goes on at a quarter of that."""

CLOSING_LIMIT = 10.0
"""Seconds after which a socket is dropped whose close has begun: a backstop for users who set no limit of their own."""

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_PING, _PONG, _CLOSE = WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE
_NOT_ON_THE_WIRE = (0, 1005, 1006, 1015)
_NO_STATUS = 1005
_LONGEST_REASON = 123

_HEAD_16 = Struct("!BBH").pack
_HEAD_64 = Struct("!BBQ").pack


class WebSocketConnection(WSListener):
    """One open WebSocket: see `Connection`.

    Made by `connect` and `serve`; see `connection` for what each method promises. All of it runs on one event loop.

    Args:
        owner: Who gets the frames.
        endpoint: Host and path, for error texts.
        heartbeat: When to ping; None: never.
        max_message: Bytes of the longest message taken.
    """

    __slots__ = (
        "_closed",
        "_drainers",
        "_endpoint",
        "_fragments",
        "_fragments_binary",
        "_gone",
        "_heard",
        "_heartbeat",
        "_loop",
        "_max_message",
        "_paused",
        "_pinged",
        "_timer",
        "_told",
        "_transport",
        "_whole",
        "_writable",
        "owner",
    )

    _transport: WSTransport

    def __init__(self, owner: Owner, *, endpoint: str, heartbeat: Heartbeat | None, max_message: int) -> None:
        self.owner = owner
        self._endpoint = endpoint
        self._heartbeat = heartbeat
        self._max_message = max_message
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._closed: Closed | None = None
        self._told = False
        # Open, and no fragment is pending: a whole frame may go straight to the owner. One look instead of two.
        self._whole = True
        self._fragments = bytearray()
        self._fragments_binary = False
        self._writable = True
        self._drainers: set[asyncio.Future[None]] = set()
        self._paused = False
        self._heard = self._pinged = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<WebSocketConnection to {self._endpoint}, {self._closed or 'open'}>"

    # ---- the contract -----------------------------------------------------------------------------------------------

    @property
    def closed(self) -> Closed | None:
        """How it ended, or None while it is open and no close has begun on either side."""
        if self._closed is None and self._transport.is_close_frame_sent:
            self._closed_by_picows()
        return self._closed

    @property
    def peer(self) -> tuple[str, int] | None:
        """Address and port of the other end, or None once they are no longer known."""
        address = self._transport.underlying_transport.get_extra_info("peername")
        return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None

    def send(self, data: bytes, binary: bool = False) -> None:
        """Send one message, without waiting.

        Raises:
            ConnectionLost: The connection is closed or closing.
        """
        if self._closed is not None or self._transport.is_close_frame_sent:
            raise self._lost()
        self._transport.send(_BINARY if binary else _TEXT, data)

    def send_all(self, frames: Sequence[Frame]) -> None:
        """Send messages that are ready together in one write: half the CPU of one write for each.

        Raises:
            ConnectionLost: The connection is closed or closing.
        """
        if self._closed is not None or self._transport.is_close_frame_sent:
            raise self._lost()
        # picows writes past the transport's queue only while that is empty, so both ways keep the order.
        masked = 0x80 if self._transport.is_client_side else 0
        lines: list[bytes] = []
        for binary, data in frames:
            lines += (_head(binary, len(data), masked), _mask(data) if masked else data)
        self._transport.underlying_transport.writelines(lines)

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was sent (see `WRITE_LIMIT`).

        Cancellation: nothing is lost; what was sent stays sent.

        Raises:
            ConnectionLost: The connection ended meanwhile.
        """
        while self.closed is None and not self._writable:
            waiter = self._loop.create_future()
            self._drainers.add(waiter)
            try:
                await waiter
            finally:
                self._drainers.discard(waiter)
        if self._closed is not None:
            raise self._lost()

    def pause(self) -> None:
        """Stop reading from the socket, so that TCP slows the peer. A few frames that were read already may follow.

        A paused connection does not notice that its peer went away: `resume` and `close` do.
        """
        if not self._paused and self.closed is None:
            self._paused = True
            self._transport.underlying_transport.pause_reading()

    def resume(self) -> None:
        """Read again after `pause`."""
        if self._paused:
            self._paused = False
            self._transport.underlying_transport.resume_reading()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Does nothing on a closed connection.

        What still arrives is dropped. `on_closed` follows when the peer has answered, or when the socket is gone.

        Raises:
            ValueError: `code` must not stand in a close frame.
        """
        if not 1000 <= code <= 4999 or code in _NOT_ON_THE_WIRE:
            raise ValueError(f"{code} is no close code for the wire; use 1000 or one from 3000 to 4999.")
        if self.closed is not None:
            return
        reason = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        self._transport.send_close(code, reason)  # type: ignore[arg-type]  # picows takes any code, its stub says else
        self._end(Closed(code, reason, clean=False))
        self.resume()  # a paused connection would never see the answer

    def abort(self) -> None:
        """Drop the socket now, without a close frame. `on_closed` follows at the next turn of the loop."""
        if self.closed is None:
            self._end(Closed(None, "aborted by this side", clean=False))
        self._transport.disconnect(graceful=False)

    async def wait_closed(self) -> None:
        """Wait until the socket is gone.

        Cancellation: the close goes on.
        """
        await asyncio.shield(self._gone)

    # ---- what picows calls ------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Take over the transport."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(WRITE_LIMIT)
        if self._heartbeat is not None:
            self._timer = self._loop.call_later(self._heartbeat.interval, self._tick)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Pass a frame on. The hot path: `msg_type` costs 0.2 us each time it is read."""
        self._heard = True
        kind = frame.msg_type
        # After a frame that breaks the protocol picows has sent its close, but reads on and delivers what it refused.
        if self._whole and frame.fin and not transport.is_close_frame_sent:
            try:
                if kind is _BINARY:
                    self.owner.on_binary(frame.get_payload_as_bytes())
                    return
                if kind is _TEXT:
                    self.owner.on_text(frame.get_payload_as_bytes())
                    return
            except Exception as error:  # noqa: BLE001  # whatever the owner let escape
                self._owner_failed(error)
                return
        self._on_other_frame(transport, kind, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Tell everybody who waits: the socket is gone."""
        if transport.is_close_frame_sent and not self._told:
            # picows keeps its own error in a future; unread, it would be logged when it is collected.
            self._loop.create_task(transport.wait_disconnected()).add_done_callback(_forget)
        if self.closed is None:
            self._end(Closed(None, "reset, or end of stream without a close frame", clean=False))
        self._stop_timer()
        self._tell()
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        """Let `drain` wait: the peer does not keep up."""
        self._writable = False

    def resume_writing(self) -> None:
        """Let `drain` go on."""
        self._writable = True
        self._wake()

    # ---- rare frames ------------------------------------------------------------------------------------------------

    def _on_other_frame(self, transport: WSTransport, kind: WSMsgType, frame: WSFrame) -> None:
        if kind is _PING:
            # A peer that pings without reading must not fill our memory with pongs.
            if self._writable:
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind is _PONG:
            self._on_pong()
        elif kind is _CLOSE:
            self._on_close_frame(frame.get_payload_as_bytes())
        elif self.closed is None:
            self._on_fragment(kind, frame)

    def _on_pong(self) -> None:
        if self._heartbeat is not None and self._pinged:
            self._heartbeat.answered = True
        # A pong proves life, but it is no traffic: the next ping falls due after one interval, not two.
        self._pinged = self._heard = False

    def _on_close_frame(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2]) or _NO_STATUS
        if self.closed is None:
            # An empty close frame has no code to echo, and picows would send a 0.
            answer = 1000 if code in _NOT_ON_THE_WIRE else code
            self._transport.send_close(answer)  # type: ignore[arg-type]  # picows takes any code, its stub says else
            self._end(Closed(code, payload[2:].decode(errors="replace"), clean=True))
        elif self._closed is not None and self._closed.code is not None:
            self._closed = replace(self._closed, clean=True)
        self._transport.disconnect()
        self._tell()

    def _on_fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        first = kind is not _CONTINUATION
        if first != self._whole:
            self._break_off(1002, "fragments out of order")
            return
        if first:
            self._whole, self._fragments_binary = False, kind is _BINARY
        if len(self._fragments) + frame.payload_size > self._max_message:
            self._break_off(1009, f"message longer than {self._max_message} bytes")
            return
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            self._on_last_fragment()

    def _on_last_fragment(self) -> None:
        data = bytes(self._fragments)
        self._fragments, self._whole = bytearray(), True
        try:
            (self.owner.on_binary if self._fragments_binary else self.owner.on_text)(data)
        except Exception as error:  # noqa: BLE001  # whatever the owner let escape
            self._owner_failed(error)

    def _break_off(self, code: int, reason: str) -> None:
        self.close(code, reason)
        self._tell()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _end(self, closed: Closed) -> None:
        self._closed = closed
        self._whole = False
        self._fragments = bytearray()
        self._wake()
        self._stop_timer()
        self._timer = self._loop.call_later(CLOSING_LIMIT, self.abort)

    def _closed_by_picows(self) -> None:
        sent = self._transport.close_handshake.sent
        if sent is not None:
            self._end(Closed(int(sent.code), sent.reason, clean=False))  # type: ignore[call-overload]  # an int enum

    def _tell(self) -> None:
        if self._told or self._closed is None:
            return
        self._told = True
        try:
            self.owner.on_closed(self._closed)
        except Exception:  # noqa: BLE001  # whatever the owner let escape
            logger.exception("The owner of a connection to %s failed in on_closed.", self._endpoint)

    def _owner_failed(self, error: Exception) -> None:
        logger.error("The owner of a connection to %s failed; dropping it.", self._endpoint, exc_info=error)
        if self._closed is None:
            self._end(Closed(None, f"its owner failed with {type(error).__name__}", clean=False))
        self.abort()

    def _lost(self) -> ConnectionLost:
        closed = self.closed
        code = None if closed is None else closed.code
        text = f"The connection to {self._endpoint} has ended: {closed}. Nothing more can be sent; open a new one."
        return ConnectionLost(text, close_code=code, endpoint=self._endpoint)

    def _wake(self) -> None:
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)

    # ---- the heartbeat ----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        heartbeat = self._heartbeat
        if heartbeat is None or self.closed is not None:
            return
        if self._paused:
            self._pinged = False  # what is not read cannot be missed: the pong may lie in the socket
        elif self._heard:
            self._heard = self._pinged = False
        elif self._pinged and heartbeat.answered:
            self._end(Closed(None, f"no pong within {heartbeat.interval:g} s", clean=False))
            self.abort()
            return
        else:
            self._pinged = True
            self._transport.send_ping()
        self._timer = self._loop.call_later(heartbeat.interval, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _head(binary: bool, size: int, masked: int) -> bytes:
    """The header of an unfragmented frame, up to the mask."""
    first = 0x82 if binary else 0x81
    if size < 126:
        return bytes((first, masked | size))
    if size < 65536:
        return _HEAD_16(first, masked | 126, size)
    return _HEAD_64(first, masked | 127, size)


def _mask(data: bytes) -> bytes:
    """A mask and what it makes of `data` (RFC 6455, 5.3). Whole numbers, because Python has no faster way to xor."""
    mask, size = getrandbits(32).to_bytes(4), len(data)
    key = (mask * (size // 4 + 1))[:size]
    return mask + (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
