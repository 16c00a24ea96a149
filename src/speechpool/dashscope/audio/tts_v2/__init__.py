"""CosyVoice with the official names: a synthesizer, a pool of them, and what they take."""

from .formats import AudioFormat
from .pool import SpeechSynthesizerObjectPool
from .speech_synthesizer import HotFix, ResultCallback, SpeechSynthesizer

__all__ = ["AudioFormat", "HotFix", "ResultCallback", "SpeechSynthesizer", "SpeechSynthesizerObjectPool"]
