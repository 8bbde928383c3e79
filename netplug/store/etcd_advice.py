"""What to do when the members of an etcd cluster do not answer, by what gRPC said of them, or refuse us, by what etcd said.

gRPC tells of TLS in the words of its library; the options that they mean are the daemon's.
"""

from __future__ import annotations

from collections.abc import Iterable

_USUAL = "start it, or correct the list of its members"
_WITHOUT_TLS: tuple[tuple[str, str], ...] = (("Socket closed", "start it, or give --store-ca FILE if it speaks TLS only"),)
_WITH_TLS: tuple[tuple[str, str], ...] = (
    ("has expired", "renew the members' certificates, or correct a clock"),
    ("not yet valid", "wait until the members' certificates are valid, or correct a clock"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by --store-ca; give there who signed it"),
    ("Hostname Verification Check failed", "its certificate has not this address; give --store one that it has, or make it anew"),
    ("Failed to create security handshaker", "--store-cert and --store-key do not fit, or --store-ca is no certificate; correct them"),
    ("Handshake read failed (Socket closed)", "start it, or leave --store-ca (and etcds://) out if it does not speak TLS"),
)
_NO_CERTIFICATE = "it wants a certificate of this host; give --store-cert and --store-key"
_OTHER_CERTIFICATE = "it does not take the certificate of --store-cert; give one whose signer it trusts, and which has not expired"


def absent(said: Iterable[str], *, tls: bool, certificate: bool) -> str:
    """`said`: gRPC's words for each member; `certificate`: we show one."""
    known = _WITH_TLS if tls else _WITHOUT_TLS
    words = list(said)
    if tls:
        known += (("Unwrap failed", _OTHER_CERTIFICATE if certificate else _NO_CERTIFICATE),)
    return next((advice for sign, advice in known if any(sign in one for one in words)), _USUAL)


def refused(details: str, user: str, prefix: str) -> str:
    """The whole sentence. `prefix`: what our keys begin with, before `/netplug/`."""
    if "user name is empty" in details:
        return f"the etcd cluster refuses: {details}: give the cluster's user and password, --store-user NAME[:PASSWORD]"
    if "permission denied" not in details:
        return f"the etcd cluster refuses: {details}"
    if not user:
        return f"the etcd cluster refuses: {details} (no user is given): give --store-user NAME[:PASSWORD]"
    place = f"{prefix}/netplug/"
    grant = f"etcdctl role grant-permission --prefix ROLE readwrite {place}"
    return f'the etcd cluster refuses: {details} (user "{user}", below {place}): {grant} with a ROLE of that user, or correct --store'
