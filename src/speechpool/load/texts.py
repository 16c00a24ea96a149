"""What a load test says: sentences of the lengths that assistants speak, or the lines of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from speechpool.errors import SettingsError

__all__ = ["CORPUS", "read"]

CORPUS: Final = (
    "Yes, of course.",
    "One moment, please.",
    "Your order left the warehouse this morning.",
    "The next train to the harbour leaves in nine minutes from platform four.",
    "I have moved the meeting to Thursday at three, and told everybody who was invited.",
    "There are two rooms left for that night, one with a view of the garden and one towards the street.",
    "It will be dry until the evening, with a light wind from the west; after that some rain is likely.",
    "Your balance is enough for this transfer, but it will arrive on Monday only, because tomorrow is a holiday.",
    "The pharmacy on the corner is closed at this hour, but the one beside the station is open all night.",
    "Turn left behind the bridge, follow the river for half a mile, and you will see the museum on the right.",
)
"""Short answers are frequent, long ones are not rare: 15 to 110 characters."""


def read(path: Path) -> tuple[str, ...]:
    """Return the lines of a file that hold something.

    Raises:
        SettingsError: It cannot be read, or is empty.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"--texts {path} cannot be read: {why}.") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise SettingsError(f"--texts {path} is empty; write one text a line.")
    return texts
