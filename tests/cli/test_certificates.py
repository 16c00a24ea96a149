"""`service --tls-cert --tls-key` and `say --tls-ca`: what works, and one line for each way in which a file is wrong."""

import ssl

import pytest
import trustme
from commands import error_line, run_here, started

from speechpool.cli.certificates import client_context, server_context


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with every kind of file that can be named."""
    here = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    for name, certificate in {
        "": authority.issue_cert("localhost"),
        "other-": authority.issue_cert("x.example"),
    }.items():
        (here / f"{name}cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(here / f"{name}key.pem")
    authority.cert_pem.write_to_path(here / "ca.pem")
    (here / "both.pem").write_bytes((here / "key.pem").read_bytes() + (here / "cert.pem").read_bytes())
    (here / "text.pem").write_text("no PEM at all")
    (here / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n")
    (here / "encrypted.pem").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    (here / "old-encrypted.pem").write_text(old)
    return here


def test_the_contexts(files):
    for cert, key in [("cert.pem", "key.pem"), ("both.pem", "both.pem")]:
        context = server_context(files / cert, files / key)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert server_context(None, None) is client_context(None) is None
    assert len(client_context(files / "ca.pem").get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("cert.pem", None, ["--tls-cert and --tls-key belong together"]),
        (None, "key.pem", ["--tls-cert and --tls-key belong together"]),
        ("nowhere.pem", "key.pem", ["--tls-cert", "nowhere.pem", "No such file"]),
        ("cert.pem", ".", ["--tls-key", "directory"]),
        ("key.pem", "cert.pem", ["--tls-cert", "key.pem", "no certificate", "a private key"]),
        ("cert.pem", "cert.pem", ["--tls-key", "no private key", "a certificate"]),
        ("text.pem", "key.pem", ["--tls-cert", "text.pem", "something else"]),
        ("cert.pem", "text.pem", ["--tls-key", "text.pem", "something else"]),
        ("broken.pem", "key.pem", ["broken.pem", "cannot be used"]),
        ("cert.pem", "other-key.pem", ["do not belong together"]),
        ("cert.pem", "encrypted.pem", ["encrypted", "openssl pkey"]),
        ("cert.pem", "old-encrypted.pem", ["encrypted", "openssl pkey"]),
    ],
)
def test_a_wrong_file_is_one_line(files, monkeypatch, capsys, tmp_path, cert, key, words):
    arguments = [
        *(["--tls-cert", str(files / cert)] if cert else []),
        *(["--tls-key", str(files / key)] if key else []),
    ]
    line = error_line(run_here(monkeypatch, capsys, tmp_path, "service", "--port", "0", *arguments), 2)
    for part in words:
        assert part in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "wss://localhost:1", "--tls-ca", "nowhere.pem"], ["--tls-ca", "No such file"]),
        (["--endpoint", "wss://localhost:1", "--tls-ca", "key.pem"], ["--tls-ca", "no certificate"]),
        (["--endpoint", "wss://localhost:1", "--tls-ca", "broken.pem"], ["--tls-ca", "cannot be used"]),
        (["--endpoint", "ws://localhost:1", "--tls-ca", "ca.pem"], ["--tls-ca", "wss://"]),
        (["--tls-ca", "ca.pem"], ["--tls-ca", "wss://"]),
    ],
)
def test_a_wrong_authority_is_one_line(files, monkeypatch, capsys, tmp_path, arguments, words):
    arguments = [str(files / each) if each.endswith(".pem") else each for each in arguments]
    done = run_here(monkeypatch, capsys, tmp_path, "say", "Hello.", "-o", str(tmp_path / "x.pcm"), *arguments)
    line = error_line(done, 2)
    for part in words:
        assert part in line
    assert list(tmp_path.iterdir()) == []


def test_a_service_over_tls_is_heard_by_who_trusts_it(files, monkeypatch, capsys, tmp_path):
    def say(url, *more, **environment):
        arguments = ("say", "Hello.", "-o", "hello.pcm", "--endpoint", url, *more)
        return run_here(monkeypatch, capsys, tmp_path, *arguments, **environment)

    pair = ("--tls-cert", files / "cert.pem", "--tls-key", files / "key.pem")
    with started("service", "--port", "0", "--engine", "marker", "--host", "localhost", *pair, cwd=tmp_path) as service:
        url = service.stdout.readline().decode().removeprefix("listening on ").strip()
        assert url.startswith("wss://localhost:")
        done = say(url, "--tls-ca", files / "ca.pem")
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "hello.pcm").stat().st_size > 1000
        done = say(url, SPEECHPOOL_ENDPOINT__TLS_CA=str(files / "ca.pem"))
        assert done.returncode == 0
        assert "--tls-ca" in error_line(say(url), 3)
        done = say(url.replace("localhost", "127.0.0.1"), "--tls-ca", files / "ca.pem")
        assert "another address" in error_line(done, 3)
        service.terminate()
        _, err = service.communicate(timeout=10)
        assert b"--tls-ca FILE" in err
        assert b"https://localhost:" in err
