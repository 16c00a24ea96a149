"""High-concurrency streaming text-to-speech over pooled WebSockets.

    async with AsyncSpeechPool(Endpoint.local()) as pool:
        speech = await pool.synthesize("Hello.", Voice("cosyvoice-v3-flash", "longanyang"))
        speech.save("hello.mp3")

`SpeechPool` is the same for threads. `speechpool service` runs a local service with a real voice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    ConnectFailed,
    ConnectionLost,
    EndpointDown,
    FirstAudioTimeout,
    InvalidText,
    LeaseError,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    ProtocolViolation,
    RateLimited,
    SettingsError,
    Shed,
    SpeechPoolError,
    TaskFailed,
    TextGap,
    Unauthorized,
    WrongLoop,
)
from .settings import Deadlines, PoolSettings

if TYPE_CHECKING:
    from .limits import Backoff, ConnectionLimits, LocalQuota, RetryBudget
    from .protocol import Audio, Finished, SentenceBegin, SentenceEnd, Voice, Word
    from .synthesis import (
        AsyncSpeechPool,
        Endpoint,
        Speech,
        SpeechLease,
        SpeechPool,
        SpeechStream,
        SpeechTask,
        TaskReport,
    )

__all__ = [
    "AsyncSpeechPool",
    "Audio",
    "Backoff",
    "ConnectFailed",
    "ConnectionLimits",
    "ConnectionLost",
    "Deadlines",
    "Endpoint",
    "EndpointDown",
    "Finished",
    "FirstAudioTimeout",
    "InvalidText",
    "LeaseError",
    "LocalQuota",
    "PoolClosed",
    "PoolFull",
    "PoolSettings",
    "PoolTimeout",
    "ProtocolViolation",
    "RateLimited",
    "RetryBudget",
    "SentenceBegin",
    "SentenceEnd",
    "SettingsError",
    "Shed",
    "Speech",
    "SpeechLease",
    "SpeechPool",
    "SpeechPoolError",
    "SpeechStream",
    "SpeechTask",
    "TaskFailed",
    "TaskReport",
    "TextGap",
    "Unauthorized",
    "Voice",
    "Word",
    "WrongLoop",
]

# Everything that speaks is imported when it is first named: the vocabulary alone costs next to nothing.
_LATER = {
    "Backoff": "limits",
    "ConnectionLimits": "limits",
    "LocalQuota": "limits",
    "RetryBudget": "limits",
    "Audio": "protocol",
    "Finished": "protocol",
    "SentenceBegin": "protocol",
    "SentenceEnd": "protocol",
    "Voice": "protocol",
    "Word": "protocol",
    "AsyncSpeechPool": "synthesis",
    "Endpoint": "synthesis",
    "Speech": "synthesis",
    "SpeechLease": "synthesis",
    "SpeechPool": "synthesis",
    "SpeechStream": "synthesis",
    "SpeechTask": "synthesis",
    "TaskReport": "synthesis",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Asked rarely, and reading the metadata of packages costs more than all the rest of this import.
        from importlib.metadata import version

        return version("speechpool")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value
