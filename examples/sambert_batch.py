"""A batch of texts, spoken by Sambert over a few warm connections: one WAV file for each line.

    speechpool service &
    python examples/sambert_batch.py                        # some lines of its own
    python examples/sambert_batch.py --output audio --at-once 8 lines.txt

One line that fails does not stop the others; the exit code says whether any did.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from speechpool import Endpoint, SpeechPool, Voice
from speechpool.errors import SpeechPoolError
from speechpool.limits import LocalQuota

LINES = ["Platform two is closed today.", "The next train leaves at ten past four.", "Please stand back.", "Thank you."]


def main() -> int:
    parser = argparse.ArgumentParser(description="Speak each line of a file into a WAV file.")
    parser.add_argument("file", nargs="?", type=Path, help="lines of text in UTF-8; none: a few of its own")
    parser.add_argument("--output", type=Path, default=Path("batch"), help="folder for the audio (%(default)s)")
    parser.add_argument("--at-once", type=int, default=4, help="how many are spoken at once (%(default)s)")
    parser.add_argument("--rate", type=float, default=3.0, help="how many begin each second (%(default)s)")
    parser.add_argument("--model", default="sambert-zhichu-v1", help="the voice (%(default)s)")
    parser.add_argument("--endpoint", default="ws://127.0.0.1:8765", help="the speech server (%(default)s)")
    chosen = parser.parse_args()
    lines = chosen.file.read_text(encoding="utf-8").splitlines() if chosen.file else LINES
    chosen.output.mkdir(parents=True, exist_ok=True)
    voice = Voice(chosen.model, format="wav", sample_rate=16000)
    endpoint = Endpoint(chosen.endpoint, api_key=os.getenv("DASHSCOPE_API_KEY", "local"))

    quota = LocalQuota(rate=chosen.rate)  # the provider refuses more, and a batch has the time

    with (
        SpeechPool(endpoint, max_size=chosen.at_once, quota=quota) as pool,
        ThreadPoolExecutor(chosen.at_once) as callers,
    ):

        def speak(numbered: tuple[int, str]) -> bool:
            number, line = numbered
            file = chosen.output / f"{number:03}.wav"
            try:
                speech = pool.synthesize(line, voice)
            except SpeechPoolError as error:
                print(f"{file}: {error}", file=sys.stderr)
                return False
            speech.save(file)
            print(f"{file}: {speech.duration:.1f} s of audio, {speech.characters} characters")
            return True

        spoken = list(callers.map(speak, enumerate(line for line in lines if line.strip())))
    print(f"{sum(spoken)} of {len(spoken)} lines spoken")
    return 0 if all(spoken) else 1


if __name__ == "__main__":
    sys.exit(main())
