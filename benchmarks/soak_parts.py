"""The processes around a soak: a service that misbehaves on demand, and the bad network in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import urllib.request

__all__ = ["Proxy", "Service"]

MISBEHAVIOUR = (
    "drop@started~2%", "drop@mid-audio~3%", "close@finishing~2%", "stall@mid-audio~1%", "slow-read:200ms~3%",
    "fail@starting~2%", "throttle@starting~2%", "invalid-action~1%", "delay@first-audio:200ms~5%",
    "early-audio~1%", "late-audio:50ms~10%", "duplicate-finish:30ms~3%", "wrong-id@first-audio~1%",
    "broken-json@mid-audio~1%", "handshake-drop~5%", "refuse:503~5%",
)  # fmt: skip
"""What a rough service does, and how often."""


class Service:
    """A service of the engine `marker` in a process of its own, that can be killed and comes back on its port."""

    def __init__(self):
        self.port = 0

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self._end)

    async def start(self):
        """Start it; the port is the one of before."""
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(self.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.port = int(await asyncio.to_thread(self._child.stdout.readline))

    async def kill(self):
        """Let it die at once, as a machine does."""
        self._child.kill()
        await asyncio.to_thread(self._end)

    async def say(self, word):
        """`rough`: misbehave from now on; `calm`: no longer."""
        self._child.stdin.write(f"{word}\n")
        self._child.stdin.flush()
        await asyncio.to_thread(self._child.stdout.readline)

    def _end(self):
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.wait(20)
        self._child.stdout.close()


class Proxy:
    """`python -m speechpool.testing.proxy`, told by HTTP."""

    def __init__(self, port):
        self._command = [sys.executable, "-m", "speechpool.testing.proxy", "--to", f"127.0.0.1:{port}"]

    async def __aenter__(self):
        self._child = subprocess.Popen(
            [*self._command, "--control", "0", "--json"],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        said = json.loads(await asyncio.to_thread(self._child.stdout.readline))
        self.port = int(said["listen"].rpartition(":")[2])
        self._control = f"http://127.0.0.1:{said['control']}"
        return self

    async def __aexit__(self, *_):
        self._child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._child.communicate)

    async def add(self, fault):
        """Let something go wrong."""
        await self._ask("POST", "/faults", {"fault": fault})

    async def clear(self):
        """Let everything be well."""
        await self._ask("DELETE", "/faults")

    async def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._control + path, data=data, method=method)

        def ask():
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return json.loads(answer.read() or b"null")

        return await asyncio.to_thread(ask)


# ------------------------------------------------------------------------------------ the service's process
def serve(port):
    """Serve until the input ends; prints the port, and each word when it is obeyed."""
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService
    from speechpool.service.faults import Faults

    class OnDemand(Faults):
        rough = False
        strike_sessions = True

        def at(self, phase):
            return super().at(phase) if self.rough else []

    faults = OnDemand.parse(MISBEHAVIOUR)

    async def main():
        settings = ServiceSettings(submission_rate=None)
        backend = LocalBackend("marker", max_first_audio=None)
        async with SpeechService(backend, port=port, settings=settings, faults=faults) as service:
            print(service.port, flush=True)
            while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
                faults.rough = word == "rough"
                print(word, flush=True)

    asyncio.run(main())


if __name__ == "__main__":
    serve(int(sys.argv[1]))
