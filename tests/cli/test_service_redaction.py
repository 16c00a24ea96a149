"""Neither the key nor the spoken text is ever printed, whatever goes well or wrong, at either end."""

import contextlib
import functools
import json
import socket
import urllib.request

import pytest
import trustme
from commands import Serving, run_here, started

from speechpool.service.faults import Faults

KEY = "sk-canary-5ecre7"
OTHER = "sk-c0nary-0ther"
TEXT = "The canary sang quietly of Zanzibar."
MARKS = ("canary", "c0nary", "Zanzibar")


class Service:
    """A service as a process, what it was asked for, and all that it and its clients have printed."""

    def __init__(self, say, directory, *arguments, tls=None):
        self._say = say
        self.printed = []
        self.tls = tls
        secure = ("--tls-cert", tls / "cert.pem", "--tls-key", tls / "key.pem", "--host", "localhost") if tls else ()
        environment = ("--api-key", KEY, "--engine", "marker", "--port", "0", "--submission-rate", "none")
        self._starting = started("service", *environment, *secure, *arguments, cwd=directory)

    def __enter__(self):
        self._process = self._starting.__enter__()
        self.url = self._process.stdout.readline().decode().removeprefix("listening on ").strip()
        self.host, _, port = self.url.removeprefix("wss://").removeprefix("ws://").partition("/")[0].rpartition(":")
        self.port = int(port)
        return self

    def __exit__(self, *error):
        self._process.terminate()
        out, err = self._process.communicate(timeout=20)
        self.printed += [out.decode(), err.decode()]
        self._starting.__exit__(*error)
        if error[0] is None:
            assert self._process.returncode == 0
            for text in self.printed:
                assert not [mark for mark in MARKS if mark in text], text

    def say(self, key=KEY, text=TEXT, codes=(0,), **options):
        trust = ("--tls-ca", self.tls / "ca.pem") if self.tls and options.get("trust", True) else ()
        place = ("--endpoint", options.get("url", self.url), "--api-key", key)
        done = self._say(text, "-o", "x.pcm", *place, *trust)
        self.printed += [done.stdout, done.stderr]
        assert done.returncode in codes, done.stderr

    def raw(self, *frames, key=KEY, opens=True):
        """Shake hands, send frames (opcode and payload), and read what comes until the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as peer:
            peer.sendall(
                f"GET /api-ws/v1/inference?token={key} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            for kind, payload in frames:
                size = bytes((len(payload) | 0x80,)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
                peer.sendall(bytes((kind | 0x80,)) + size + bytes(4) + payload)
            peer.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionError):
                while data := peer.recv(65536):
                    received += data
        assert (b" 101 " in received) is opens
        return received

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            self.printed += [answer.read().decode(), str(answer.headers)]


@pytest.fixture
def serving(monkeypatch, capsys, caplog, tmp_path):
    """Start a service; its clients run in this process, with all that they log at info level and above."""
    caplog.set_level("INFO")

    def say(*arguments):
        caplog.clear()
        done = run_here(monkeypatch, capsys, tmp_path, "say", *arguments, hush=False)
        done.stderr += caplog.text
        return done

    return functools.partial(Service, say, tmp_path)


def frame(action, **payload):
    header = {"action": action, "task_id": "a", "streaming": "duplex"}
    return 1, json.dumps({"header": header, "payload": {"input": {}} | payload}).encode()


RUN = frame("run-task", model="m", parameters={"voice": "longanyang", "format": "pcm", "instruction": TEXT})


def test_success_and_every_refusal(serving):
    with serving() as service:
        service.say()
        service.say(key=OTHER, codes=(4,))
        service.raw(key=OTHER, opens=False)
        service.raw(key=f"{KEY}\r\nBroken header {KEY}", opens=False)
        service.raw(key=f"{KEY}\xff", opens=False)
        for path in ("/healthz", "/voices"):
            service.page(path)


def test_frames_that_break_the_rules(serving):
    text = TEXT.encode()
    with serving() as service:
        service.raw((1, text))
        service.raw((1, b'{"header": {"action": "' + text + b'", "task_id": "' + text + b'"}, "payload": {}}'))
        service.raw((1, b'{"header": "' + text + b"\xff"))
        service.raw((2, text))
        service.raw((0, text))
        service.raw((9, text), (3, text))
        service.raw((8, b"\x03\xe8" + text))
        service.raw((0x41, text))
        service.raw(frame("continue-task", input={"text": TEXT}))
        service.raw(RUN, frame("run-task", model=TEXT, parameters={"voice": TEXT, "format": TEXT, "hot_fix": TEXT}))
        service.raw(frame("run-task", model=TEXT, parameters={"voice": TEXT}))
        service.raw(RUN, frame("continue-task", input={"text": TEXT}))
        service.page("/healthz")


@pytest.mark.parametrize(
    ("faults", "codes"),
    [
        (["drop@mid-audio"], {3}),
        (["close@started:1011"], {3}),
        (["fail@started:InvalidParameter"], {5}),
        (["broken-json@finishing"], {3, 5}),
        (["early-audio"], {0, 3, 5}),
        (["refuse:401"], {4}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_faults(monkeypatch, capfd, caplog, tmp_path, faults, codes):
    """Both ends in this process, with all that they log at info level and above."""
    caplog.set_level("INFO")
    with Serving("marker", api_key=KEY, faults=Faults.parse(faults)) as service:
        place = ("--endpoint", service.url, "--api-key", KEY)
        done = run_here(monkeypatch, capfd, tmp_path, "say", TEXT, "-o", "x.pcm", *place, hush=False)
    assert done.returncode in codes, done.stderr
    for text in (done.stdout, done.stderr, caplog.text, *capfd.readouterr()):
        assert not [mark for mark in MARKS if mark in text], text


def test_tls_and_a_port_where_nobody_listens(serving, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(tls=tmp_path) as service:
        service.say()
        service.say(codes=(3,), trust=False)
        service.say(codes=(3,), url=f"wss://127.0.0.1:{service.port}")
        service.say(codes=(3,), url="wss://localhost:1")
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as peer:
            peer.sendall(f"GET / HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                while peer.recv(4096):
                    pass


def test_a_killed_client_and_a_drained_service(serving, tmp_path):
    with serving("--drain", "0") as service:
        arguments = ("--endpoint", service.url, "--api-key", KEY)
        with started("say", "-", "-o", "-", *arguments, cwd=tmp_path, stdin=None) as client:
            client.kill()
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as peer:
            peer.sendall(f"GET / HTTP/1.1\r\nAuthorization: Bearer {KEY}".encode())
