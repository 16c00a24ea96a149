"""A service in a process of its own that dies without a word, as a machine does, and comes back on the same port.

python killed_service.py PORT      prints its port when it listens, and what it has counted when its input ends
"""

import asyncio
import signal
import subprocess
import sys


class Process:
    """The service, from outside."""

    def __init__(self, port=0):
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._child.stdout.readline())

    def kill(self):
        """Let it die at once: no close frame, no end of any kind but the kernel's."""
        self._child.send_signal(signal.SIGKILL)
        self._reap()

    def end(self):
        """Let it go, and return how many connections it accepted."""
        self._child.stdin.close()
        connections = int(self._child.stdout.readline())
        self._reap()
        return connections

    def _reap(self):
        self._child.wait(20)
        for pipe in (self._child.stdin, self._child.stdout):
            pipe.close()


def say(number):
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


async def serve(port):
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService

    settings = ServiceSettings(submission_rate=None)
    backend = LocalBackend("marker", max_first_audio=None)
    async with SpeechService(backend, port=port, settings=settings) as service:
        say(service.port)
        await asyncio.to_thread(sys.stdin.read)
        say(service.counts.connections)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
