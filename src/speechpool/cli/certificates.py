"""TLS of the command line: files in, contexts out, and one clear error for each way in which a file can be wrong."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from speechpool.errors import SettingsError

__all__ = ["client_context", "server_context"]

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = b"ENCRYPTED"


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the context of a server, TLS 1.2 or newer; None where neither file is named.

    Args:
        certificate: PEM file with the certificate, and the intermediate ones behind it.
        key: PEM file with its private key, not encrypted.

    Raises:
        SettingsError: One is missing, cannot be read, is something else, or they do not belong together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise SettingsError("--tls-cert and --tls-key belong together; give both, or neither.")
    _check("--tls-cert", certificate, _CERTIFICATE, "certificate")
    if _ENCRYPTED in _check("--tls-key", key, _KEY, "private key"):
        raise SettingsError(
            f"--tls-key {key} is encrypted, and a service cannot ask for its password; decrypt it first: "
            f"openssl pkey -in {key.name} -out plain.key"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password="")  # without one OpenSSL would ask on the terminal
    except ssl.SSLError as error:
        raise SettingsError(f"--tls-cert {certificate} and --tls-key {key} {_why(error)}.") from None
    return context


def client_context(authority: Path | None) -> ssl.SSLContext | None:
    """Return the context of a client that trusts `authority`, and nobody else; None: the system's choice.

    Args:
        authority: PEM file with certificates: of an authority, or a self-signed one.

    Raises:
        SettingsError: The file cannot be read, or is something else.
    """
    if authority is None:
        return None
    _check("--tls-ca", authority, _CERTIFICATE, "certificate")
    try:
        return ssl.create_default_context(cafile=authority)
    except ssl.SSLError as error:
        raise SettingsError(f"--tls-ca {authority} cannot be used: {error.reason or error}.") from None


def _check(flag: str, path: Path, mark: bytes, what: str) -> bytes:
    """Return the content of a PEM file that holds `what`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{flag} {path} cannot be read: {error.strerror}.") from None
    if mark not in content:
        held = "a private key" if _KEY in content else "a certificate" if _CERTIFICATE in content else "something else"
        raise SettingsError(f"{flag} {path} holds no {what} in PEM form, but {held}.")
    return content


def _why(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "do not belong together: the key is that of another certificate"
    return f"cannot be used: {error.reason or 'one of them is damaged'}"
