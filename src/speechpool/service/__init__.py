"""The local speech service: speaks the provider's protocol with a real voice, on this machine."""

from .backend import LocalBackend
from .limits import ServiceSettings
from .server import SpeechService

__all__ = ["LocalBackend", "ServiceSettings", "SpeechService"]
