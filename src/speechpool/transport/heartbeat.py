"""When to ask a silent peer whether it is still there, and when silence means death."""

from __future__ import annotations

from dataclasses import dataclass

from speechpool.errors import SettingsError

__all__ = ["Heartbeat"]


@dataclass(slots=True)
class Heartbeat:
    """The heartbeat of one endpoint, shared by all its connections, which write down what they learn.

    After `interval` seconds of silence (at most twice that: a frame stores no time, only that it came) a ping is sent.
    If nothing at all is heard for another `interval`, the connection is dead, provided that this endpoint has answered
    a ping before: some servers never do, and must not lose their connections for it.

    Attributes:
        interval: Seconds, above 0.
        answered: A connection of this endpoint has had a pong.

    Raises:
        SettingsError: `interval` is not above 0.
    """

    interval: float
    answered: bool = False

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise SettingsError(
                f"Heartbeat.interval = {self.interval!r} must be above 0 s; pass no heartbeat to turn it off."
            )
