"""The files for TLS with the cluster's store, looked at before the daemon starts: gRPC says of none of them what is wrong with it."""

from __future__ import annotations

import ssl

from netplug.errors import InvalidArgument


def check(ca: str, cert: str, key: str) -> None:
    """InvalidArgument where `ca` is no certificate, or `key` does not belong to `cert`; both may be `""`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option, path in (("--store-ca", ca), ("--store-cert", cert), ("--store-key", key)):
        _check_readable(option, path)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise InvalidArgument(f"--store-ca {ca} is no certificate in PEM: give the one that signed the members'") from None
    if cert:
        _check_pair(context, cert, key)


def _check_readable(option: str, path: str) -> None:
    if not path:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidArgument(f"{option} {path} cannot be read: {error.strerror}") from None


def _check_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        context.load_cert_chain(cert, key, password="")  # without one, Python would ask at the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidArgument(f"--store-key {key} does not belong to --store-cert {cert}: give the key that it was made with") from None
        wanted = "give a certificate and its key in PEM, the key without a password"
        raise InvalidArgument(f"--store-cert {cert} or --store-key {key} cannot be read: {wanted}") from None
