"""The service under fuzz, in a process of its own: prints its port, and ends at SIGTERM. Its log goes to stderr.

Time limits are short, so that what the service owes to a connection that is gone does not hold the fuzzer up.
"""

import logging
import sys

import uvloop

from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.running import run

SETTINGS = ServiceSettings(
    submission_rate=None,
    early_text=True,  # a whole task may come in one write, so that the states behind a start are met, too
    linger=0.02,
    text_gap=4.0,
    idle_timeout=4.0,
    max_connections=1000,
)


def announce(service):
    sys.stdout.write(f"{service.port}\n")
    sys.stdout.flush()


def main():
    logging.basicConfig(level=logging.INFO)
    backend = LocalBackend("marker", profile="paced")
    uvloop.run(run(SpeechService(backend, port=0, settings=SETTINGS), drain=5.0, on_listening=announce))


if __name__ == "__main__":
    main()
