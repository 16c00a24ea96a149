"""Sambert under the official names: `SpeechSynthesizer.call` and what it gives."""

from .speech_synthesizer import ResultCallback, SpeechSynthesisResult, SpeechSynthesizer

__all__ = ["ResultCallback", "SpeechSynthesisResult", "SpeechSynthesizer"]
