"""What `speechpool demo` says."""

from __future__ import annotations

from typing import Final

__all__ = ["OPENING", "STREAM"]

OPENING: Final = ("First sentence.", "Second sentence.", "Third sentence.")
"""Said at once, and kept."""

STREAM: Final = tuple(
    """\
A pool keeps its connections open and warm, so that nobody who wants to speak has to wait until a handshake is over.
Whoever borrows a connection owns it alone until it goes back, and when the work has failed it does not go back at all.
The first packet of audio decides whether a conversation feels alive, and the rest has only to come before it is played.
When a listener interrupts, the voice has to stop at once, and the server should be free before the question is over.
A queue that grows without a limit is only a slower way to fail, so a good pool says early and clearly that it is full.
Numbers without a target beside them are decoration, and a target without a reason for each miss is only a wish.
Late in the evening the harbour grew quiet, the cranes stood still, and one heard only the last ferry's slow engine.
The old clock in the station hall had been wrong for so long that the whole town had learned to add seven minutes.
If the wind turns before noon, we shall reach the island by sunset; if not, we have bread and water for one more night.
She opened the letter with great care, read the first line twice, folded it again, and walked out into the garden.
""".splitlines()
)
"""What the stream says, again and again: sentences of some seven seconds."""
