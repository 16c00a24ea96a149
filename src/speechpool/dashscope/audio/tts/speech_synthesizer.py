"""Sambert's `SpeechSynthesizer` with the official names, order and defaults (source: the official SDK 2.0.2).

The official class opens a thread, an event loop, a session and a socket for each call. Here calls share warm
connections with all other synthesizers of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

from speechpool.dashscope.common.error import AuthenticationError
from speechpool.dashscope.endpoints import current_key, resolved
from speechpool.dashscope.errors import InputRequired, ModelRequired, built
from speechpool.dashscope.pools import shared
from speechpool.protocol import Voice
from speechpool.protocol.models import SAMBERT_FORMATS, SAMBERT_SAMPLE_RATES

from .reading import Item, Reading
from .responses import OK, SpeechSynthesisResponse, completed, failed

__all__ = ["ResultCallback", "SpeechSynthesisResult", "SpeechSynthesizer"]


class SpeechSynthesisResult:
    """What a call gives, or one event of it."""

    def __init__(
        self,
        frame: bytes | None,
        data: bytes | None,
        sentence: Mapping[str, Any] | None,
        sentences: list[Mapping[str, Any]] | None,
        response: SpeechSynthesisResponse | None,
    ) -> None:
        self._frame = frame
        self._data = data
        self._sentence = sentence
        self._sentences = sentences
        self._response = response

    def get_audio_frame(self) -> bytes | None:
        """Return the audio of an event; None of one about a sentence."""
        return self._frame

    def get_audio_data(self) -> bytes | None:
        """Return all audio of the call."""
        return self._data

    def get_timestamp(self) -> Mapping[str, Any] | None:
        """Return the sentence of an event; None of one with audio."""
        return self._sentence

    def get_timestamps(self) -> list[Mapping[str, Any]] | None:
        """Return all sentences of the call, each as it was told last."""
        return self._sentences

    def get_response(self) -> SpeechSynthesisResponse | None:
        """Return how the call went: `status_code` 200, or why not."""
        return self._response


class ResultCallback:
    """Derive from this, and override what you want to know.

    `on_open`, then `on_event` as it comes, then `on_complete` or `on_error`, and `on_close` once; all of them in the
    thread that called. They may take their time, which slows this call only.
    """

    def on_open(self) -> None:
        """The call begins."""

    def on_complete(self) -> None:
        """All audio has come."""

    def on_error(self, response: SpeechSynthesisResponse) -> None:
        """The call has failed."""

    def on_close(self) -> None:
        """Nothing follows."""

    def on_event(self, result: SpeechSynthesisResult) -> None:
        """The next piece of audio, or what is known of a sentence."""


class SpeechSynthesizer:
    """Speaks with Sambert's voices."""

    class AudioFormat:
        """Values of `format`."""

        format_wav = "wav"
        format_pcm = "pcm"
        format_mp3 = "mp3"

    @classmethod
    def call(
        cls,
        model: str,
        text: str,
        callback: ResultCallback | None = None,
        workspace: str | None = None,
        **kwargs: Any,
    ) -> SpeechSynthesisResult:
        """Speak a whole text, and return when the last callback has.

        Args:
            model: A Sambert model, which is a voice: `sambert-zhichu-v1`.
            text: At most 10,000 characters.
            callback: Told of everything as it comes.
            workspace: The workspace.
            **kwargs: `format` (`wav`, `pcm`, `mp3`), `sample_rate`, `volume`, `rate`, `pitch`,
                `word_timestamp_enabled`, `phoneme_timestamp_enabled` and any other parameter of the wire; `api_key`,
                `base_address`, `headers`; `request_timeout`, seconds that the call may take.

        Returns:
            Audio, sentences and response. What goes wrong after the start is in the response.

        Raises:
            ModelRequired: There is no model.
            AuthenticationError: There is no key.
            InputRequired: The URL wants a workspace, and there is none.
            Exception: What a callback raised. The task is given up.
        """
        url = resolved(kwargs.pop("base_address", None), workspace)
        api_key = kwargs.pop("api_key", None) or _key()
        headers, limit = kwargs.pop("headers", None), kwargs.pop("request_timeout", None)
        if not model:
            raise built(ModelRequired, "Model is required!")

        def begun() -> Reading:
            return Reading(shared.host(url, workspace, headers, api_key), _voice(model, kwargs), text, limit)

        told = callback or ResultCallback()
        told.on_open()
        heard, sentences, response = [], _Sentences(), None
        with closing(_parts(begun)) as parts:
            for part in parts:
                if isinstance(part, bytes):
                    heard.append(part)
                    told.on_event(SpeechSynthesisResult(part, None, None, None, None))
                elif isinstance(part, SpeechSynthesisResponse):
                    response = part
                else:
                    sentences.tell(part)
                    told.on_event(SpeechSynthesisResult(None, None, part, None, None))
        if response is not None and response.status_code != OK:
            told.on_error(response)
        else:
            told.on_complete()
        told.on_close()
        return SpeechSynthesisResult(None, b"".join(heard) or None, None, sentences, response)


class _Sentences(list[Mapping[str, Any]]):
    """Each sentence once: a later word on it takes the place of an earlier one."""

    def tell(self, sentence: Mapping[str, Any]) -> None:
        if self and self[-1].get("begin_time") == sentence.get("begin_time"):
            self[-1] = sentence
        else:
            self.append(sentence)


def _parts(begun: Callable[[], Reading]) -> Generator[Item | SpeechSynthesisResponse, None, None]:
    """Hand out what comes, and how it went at last. What the reader raises is not caught here."""
    task = None
    try:
        task = begun()
        yield from task.items()
    except Exception as error:  # noqa: BLE001  # the official class raises none of them
        yield failed(error, task.request_id if task is not None else None)
    else:
        yield completed(task.request_id, task.characters)


def _key() -> str:
    try:
        return current_key()
    except InputRequired as error:
        raise built(AuthenticationError, f"No api key provided: {error}") from None


def _voice(model: str, parameters: Mapping[str, Any]) -> Voice:
    """Return the voice; values are left to the server, which knows its own limits.

    Raises:
        SettingsError: The model is none of Sambert's, or a value cannot be sent.
    """
    wanted = {name: value for name, value in parameters.items() if value is not None}
    audio_format = wanted.get("format", SpeechSynthesizer.AudioFormat.format_wav)
    sample_rate = wanted.get("sample_rate")
    return Voice(
        model,
        # What is unknown here is the server's to refuse, and nothing that the audio could be measured by.
        format=audio_format if audio_format in SAMBERT_FORMATS else SpeechSynthesizer.AudioFormat.format_pcm,
        sample_rate=sample_rate if sample_rate in SAMBERT_SAMPLE_RATES else None,
        ssml=wanted.get("text_type") == "SSML",
        extra={"format": audio_format, **wanted},
    )
