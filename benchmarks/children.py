"""What the benchmarks share: processes that answer line by line, the C programs, two cores, versions."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("speechpool", "picows", "aiofastnet", "uvloop", "msgspec", "orjson", "dashscope", "websocket-client")


class Failure(Exception):
    """Nothing could be measured; the text says why and what to do."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def compiled(source, folder):
    """Return the path of the program that was made of a C file."""
    if shutil.which("gcc") is None:
        raise Failure(
            f"gcc is missing, and {source} must be compiled; on Debian: apt-get install gcc libc6-dev libssl-dev"
        )
    binary = folder / Path(source).stem
    command = ["gcc", "-O2", "-o", str(binary), str(HERE / source), "-lssl", "-lcrypto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = "openssl" in done.stderr or "-lssl" in done.stderr or "-lcrypto" in done.stderr
        hint = (
            "OpenSSL's headers are missing; on Debian: apt-get install libssl-dev" if missing else done.stderr.strip()
        )
        raise Failure(f"{source} does not compile: {hint}")
    return binary


class Child:
    """A process that answers line by line."""

    def __init__(self, name, command, **environment):
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
        )
        self.pid = self.process.pid
        self._unread = b""

    def line(self, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self._unread:
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Failure(f"{self.name} has not answered within {timeout:g} s")
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                raise Failure(f"{self.name} ended by itself; its own message stands above")
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def answer(self, timeout):
        value = json.loads(self.line(timeout))
        if "error" in value:
            raise Failure(f"{self.name}: {value['error']}")
        return value

    def ask(self, line, timeout):
        with contextlib.suppress(BrokenPipeError):  # then `answer` knows more
            self.process.stdin.write(f"{line}\n".encode())
        return self.answer(timeout)

    def pin(self, cores):
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)

    def stop(self):
        # The clients only rest or burn CPU, and hold nothing that must be saved.
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def two_cores():
    if sys.platform != "linux":
        raise Failure(f"this needs Linux (epoll, /proc, CPU affinity), not {sys.platform}")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise Failure("this needs two cores, one for the client and one for the server, and may use only one")
    return cores


def interrupt(*_):
    raise KeyboardInterrupt


def versions():
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
