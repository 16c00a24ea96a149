"""`SpeechSynthesizerObjectPool` with the official names, order and defaults (source: the official SDK 2.0.2)."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from speechpool.dashscope.endpoints import resolved
from speechpool.dashscope.errors import translated
from speechpool.dashscope.pools import ObjectPool
from speechpool.dashscope.tasks import Callback

from .formats import AudioFormat
from .speech_synthesizer import HotFix, SpeechSynthesizer
from .wishes import Format

__all__ = ["SpeechSynthesizerObjectPool"]

logger: Final = logging.getLogger("speechpool.dashscope")

_DRAIN: Final = 30.0
"""Seconds that running tasks get when the pool is shut down."""


class SpeechSynthesizerObjectPool:
    """Synthesizers whose connections are open before they are needed. Any thread may use it; there may be several.

    Returns when all connections are open, which it opens at once, or with fewer after ten seconds; then the rest
    follows in the background.

    Args:
        max_size: How many connections are kept open; any number.
        url: Where to; None: `dashscope.base_websocket_api_url`.
        headers: Further headers of the handshake.
        workspace: The workspace.

    Raises:
        ValueError: `max_size` is below 1.
        TimeoutError: No connection opened (`NotConnected`; it says why).
        InputRequired: There is no key.
    """

    def __init__(
        self,
        max_size: int = 20,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        workspace: str | None = None,
    ) -> None:
        if max_size <= 0:
            raise ValueError("max_size must be greater than 0")
        self._url, self._headers, self._workspace = url, headers, workspace
        self._lock = threading.Lock()
        self._borrowed: weakref.WeakSet[SpeechSynthesizer] = weakref.WeakSet()
        with translated():
            self._pool = ObjectPool(max_size, resolved(url, workspace), workspace, headers)

    def borrow_synthesizer(  # noqa: PLR0917  # the official order
        self,
        model: str,
        voice: str,
        format: Format = AudioFormat.DEFAULT,  # noqa: A002  # the official name
        volume: int = 50,
        speech_rate: float = 1.0,
        pitch_rate: float = 1.0,
        seed: int = 0,
        synthesis_type: int = 0,
        instruction: str | None = None,
        language_hints: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        callback: Callback | None = None,
        workspace: str | None = None,
        url: str | None = None,
        additional_params: Mapping[str, Any] | None = None,
        *,
        hot_fix: HotFix | Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> SpeechSynthesizer:
        """Return a synthesizer with a connection of this pool.

        Where all are lent it returns, as the official pool does, one that opens a further connection when it begins,
        and closes it on return. So does one that names another `url`, `workspace` or other `headers` than the pool's.

        Args:
            timeout: Seconds to wait for a connection of the pool instead.
            hot_fix: As of `SpeechSynthesizer`, which explains the others, too.

        Raises:
            TimeoutError: No connection became free within `timeout`.
            InvalidTask: The pool was shut down.
        """
        own = url is None and headers is None and workspace is None
        synthesizer = SpeechSynthesizer(
            model, voice, format, volume, speech_rate, pitch_rate, seed, synthesis_type, instruction, language_hints,
            self._headers if headers is None else headers,
            callback,
            self._workspace if workspace is None else workspace,
            self._pool.where[0] if own else self._url if url is None else url,
            hot_fix,
            additional_params,
        )  # fmt: skip
        here = own or (synthesizer.url, synthesizer.workspace, synthesizer.headers) == self._pool.where
        with translated():
            synthesizer.lent(self._pool, self._pool.lend(timeout) if here else None)
        with self._lock:
            self._borrowed.add(synthesizer)
        return synthesizer

    def return_synthesizer(self, synthesizer: SpeechSynthesizer) -> bool:
        """Give a synthesizer back.

        Returns:
            True: It is back. False: it is none of this pool's, was returned or closed before, still runs (return it
            again later, or close it), or its last task failed; then its connection is closed, and the pool opens
            another one. The log says which.
        """
        if not isinstance(synthesizer, SpeechSynthesizer) or not synthesizer.lent_by(self._pool):
            logger.error("return_synthesizer: the object was not borrowed here.")
            return False
        fault = synthesizer.fault
        if fault:
            logger.warning("return_synthesizer: the object is refused: %s.", fault)
            if synthesizer.running:
                return False
        with self._lock:
            self._borrowed.discard(synthesizer)
        return synthesizer.give_up("returned", discard=bool(fault)) and not fault

    def shutdown(self) -> None:
        """Let running tasks end, for 30 seconds at most, and close every connection. A second call does nothing.

        Borrowing raises `InvalidTask` from now on.
        """
        self._pool.closed = True
        end = time.monotonic() + _DRAIN
        with self._lock:
            borrowed = list(self._borrowed)
            self._borrowed.clear()
        for synthesizer in borrowed:
            synthesizer.wait_until(end)
        for synthesizer in borrowed:
            synthesizer.give_up("lent by a pool that was shut down", discard=False)
        self._pool.end()
