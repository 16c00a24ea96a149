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
    max_connections_per_key: int | None = setting(None, 1, "connections", "None: no limit; the provider names none")
    max_connections_per_address: int | None = setting(None, 1, "connections", "None: no limit of its own")
    handshake_timeout: float | None = setting(5.0, 0.01, "s", "a peer that does not finish its request is dropped")
    max_frame: int = setting(1_048_576, 1024, "bytes", "the longest text, escaped, takes a quarter of it; beyond: 1009")
    text_gap: float | None = setting(23.0, 0.01, "s", "a task without new text is given up; the provider's value")
    idle_timeout: float | None = setting(60.0, 0.01, "s", "a connection without a task is closed; the provider's value")
    max_send: int = setting(20_000, 1, "characters", "of one send, a Han character counts 2; the provider's value")
    max_task: int = setting(200_000, 1, "characters", "of one task, counted likewise; the provider's value")
    max_instruction: int = setting(100, 1, "characters", "of an instruction, counted likewise; the provider's value")
    submission_rate: float | None = setting(
        3.0, 0.01, "1/s", "run-tasks of one key and model; the provider's value; None: no limit"
    )
    max_tasks_per_key: int | None = setting(None, 1, "tasks", "None: no limit; the provider names none")
    early_text: bool = setting(
        default=False, minimum=0, unit="flag", reason="text right after run-task is refused, as the reference says"
    )
    older_events: bool = setting(
        default=False,
        minimum=0,
        unit="flag",
        reason="events without `type` and `usage`, as the first versions were",
    )
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
