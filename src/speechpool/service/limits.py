"""What one service allows: connections, silences, slow readers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from speechpool.settings import CheckedSettings, setting

__all__ = ["ServiceSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings(CheckedSettings):
    """Limits of a speech service. None turns a time off.

    Raises:
        SettingsError: A value is below its minimum or of the wrong kind.
    """

    max_connections: int = setting(2000, 1, "connections", "beyond it a handshake is answered 503")
    text_gap: float | None = setting(23.0, 0.01, "s", "a task without new text is given up; the provider's value")
    idle_timeout: float | None = setting(60.0, 0.01, "s", "a connection without a task is closed; the provider's value")
    stall_timeout: float | None = setting(
        600.0, 0.01, "s", "a peer that takes no audio, or a speech that makes none, is given up"
    )

    linger: float | None = setting(
        0.2, 0.0, "s", "a failed connection stays open so long: a client that still sends learns the reason first"
    )

    @property
    def shortest_limit(self) -> float:
        """The shortest of the times, in seconds; infinite where all are turned off."""
        return min(
            (limit for limit in (self.text_gap, self.idle_timeout, self.stall_timeout) if limit), default=math.inf
        )
