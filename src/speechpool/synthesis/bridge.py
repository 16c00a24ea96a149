"""Several segments as one speech: the bridge over the text clock of a server.

A server gives a task up when no text has come for some time (CosyVoice: 23 s). A caller that thinks longer, as a
language model's tool calls do, would lose its task. So the running segment is ended before that, and the next one
begins with the next text, on the same lease. What was decided, and why:

- The segment is ended when 20 of 23 s have passed since its last text, or since its start if it has none. Whether the
  server's clock stands still while audio flows is not documented; ours does not, because an end too early costs nothing
  but a run-task, and one too late the task. A flush is no text, for the same reason.
- Not earlier, even where the text ends a sentence: each segment takes a permit, and most callers go on. Where it does
  not end one, the sentence is cut there; nothing else is possible.
- A segment that had text is finished; one that had none is cancelled, whose answer is documented, and costs nothing.
- The next segment begins when the one before has ended on the wire and there is text for it. Until then no segment
  runs, no deadline but `total` counts, and a `finish` ends the task at once. The lease is kept; if its connection has
  ended meanwhile, or is too old, the lease is renewed, ahead of those who wait for a first connection.
- Each segment is a run-task, so each takes a permit, which waits as long as a borrower may.
- A segment that breaks before its own audio is replayed from its own text, though earlier segments were heard: no audio
  is heard twice, which is what forbids a retry after the first audio. Each segment has the retries of a task; the
  budget of the pool bounds them all.
"""

from __future__ import annotations

from typing import Final

from speechpool.protocol import Dialect, Finished, SentenceBegin, SentenceEnd, Word

__all__ = ["Past", "patience"]

_SHARE: Final = 20 / 23
"""How much of the server's clock may pass: the rest is for the ticker, the way and a busy loop."""


def patience(dialect: Dialect) -> float | None:
    """Return the seconds without text after which a running segment has to be ended; None: it need not be."""
    return None if dialect.text_gap is None else dialect.text_gap * _SHARE


class Past:
    """What the segments before the present one add up to, and the events of the present one as the task tells them.

    Attributes:
        characters: Characters that they were billed for.
        words: How many words they told.
    """

    __slots__ = ("_last", "_offset", "_sentences", "characters", "words")

    def __init__(self) -> None:
        self.characters = 0
        self.words = 0
        self._sentences = 0
        self._offset = 0.0  # milliseconds of their audio
        self._last = Finished()

    def add(self, event: Finished, *, characters: int, words: int, sentences: int, seconds: float) -> None:
        """Add the segment that `event` has finished: with its `sentences`, and the other sums of the whole task."""
        self.characters, self.words = characters, words
        self._sentences += sentences
        self._offset = round(seconds * 1000, 3)
        self._last = event

    def begin(self, event: SentenceBegin) -> SentenceBegin:
        """Return the begin of a sentence of the present segment as one of the whole task."""
        return SentenceBegin(self._sentences + event.index, event.text)

    def end(self, event: SentenceEnd) -> SentenceEnd:
        """Return the end of a sentence of the present segment as one of the whole task."""
        begin, end = event.begin_time, event.end_time
        return SentenceEnd(
            self._sentences + event.index,
            event.text,
            self.later(event.words),
            None if event.characters is None else self.characters + event.characters,
            None if begin is None else begin + self._offset,
            None if end is None else end + self._offset,
        )

    def later(self, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """Return the words of the present segment at their places in the whole task."""
        return tuple(word.later(self._offset) for word in words)

    def finished(self, event: Finished | None) -> Finished:
        """Return the end of the present segment as that of the whole task; None: no segment runs."""
        if event is None:
            return Finished(self.characters or None, server_request_id=self._last.server_request_id)
        characters = None if event.characters is None else self.characters + event.characters
        return Finished(characters, self.later(event.words), event.server_request_id)
