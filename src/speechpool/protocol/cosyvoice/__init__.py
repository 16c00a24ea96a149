"""CosyVoice and Qwen-Audio-TTS: the duplex protocol of DashScope's `/api-ws/v1/inference`, both ends.

JSON text frames with `header` and `payload`, audio in binary frames that carry no id; tasks run one after another on a
connection. `states` is the order as a table that both ends use, `frames` the shapes, `client` and `server` the two
ends, `failures` what an error code means. `handshake`, `segment` (client) and `order` (server) are what Sambert shares.

Source: DashScope's WebSocket API reference and the official SDKs, as of 2026-10.
"""

from .client import TEXT_GAP, CosyVoice, CosyVoiceSegment
from .failures import FAILURES, INVALID_ACTION, INVALID_PARAMETER
from .order import Malformed, Refused, TaskOrder
from .server import (
    CancelTask,
    ContinueTask,
    FinishTask,
    FlushTask,
    Instruction,
    LateCancel,
    RunTask,
    ServerSession,
)
from .states import State

__all__ = [
    "FAILURES",
    "INVALID_ACTION",
    "INVALID_PARAMETER",
    "TEXT_GAP",
    "CancelTask",
    "ContinueTask",
    "CosyVoice",
    "CosyVoiceSegment",
    "FinishTask",
    "FlushTask",
    "Instruction",
    "LateCancel",
    "Malformed",
    "Refused",
    "RunTask",
    "ServerSession",
    "State",
    "TaskOrder",
]
