"""How a node is told of its cluster: `--store etcd://HOST:PORT,…[/PREFIX]`, `--advertise`, `--node`."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from netplug.capability import Underlay
from netplug.cluster import certificates, location
from netplug.errors import InvalidArgument
from netplug.kernel import vxlan
from netplug.settings import NODE_NAME, Settings
from netplug.store import Store


def store(chosen: Settings) -> Store:
    """The cluster's store, which has been asked nothing yet. Its client is imported here: who has no cluster does not pay for it."""
    from netplug.store.etcd import EtcdStore, Tls

    members, prefix = location.parse(chosen.store)
    tls = None
    if chosen.store_ca:
        cert, key = (Path(path) if path else None for path in (chosen.store_cert, chosen.store_key))
        tls = Tls(Path(chosen.store_ca), cert, key)
    user, _, password = chosen.store_user.partition(":")
    return EtcdStore(members, prefix=prefix, tls=tls, user=user, password=password or os.environ.get("NETPLUG_STORE_PASSWORD", ""))


def check(chosen: Settings) -> None:
    """What only the cluster's settings together can tell."""
    if not chosen.store:
        for name in ("advertise", "store_ca", "store_cert", "store_key", "store_user"):
            if getattr(chosen, name):
                raise InvalidArgument(f"--{name.replace('_', '-')} is of no use without --store etcd://HOST:PORT")
        return
    location.parse(chosen.store)
    if not chosen.advertise:
        raise InvalidArgument("--store needs --advertise ADDRESS: the address of this host by which the other nodes reach it")
    if bool(chosen.store_cert) != bool(chosen.store_key) or (chosen.store_cert and not chosen.store_ca):
        raise InvalidArgument("--store-cert, --store-key and --store-ca go together: certificate, key, and who signed the members'")
    if chosen.store.startswith("etcds:") and not chosen.store_ca:
        raise InvalidArgument("--store etcds://… needs --store-ca FILE: who signed the members' certificates; without TLS, write etcd://…")
    if not NODE_NAME.fullmatch(node(chosen)):
        raise InvalidArgument(f'invalid node name "{node(chosen)}": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; give --node NAME')
    if chosen.store_ca:
        certificates.check(chosen.store_ca, chosen.store_cert, chosen.store_key)


def node(chosen: Settings) -> str:
    return chosen.node or os.uname().nodename


def underlay(chosen: Settings, folder: Path) -> Underlay:
    """What tunnels of this node run through; without a cluster only where its namespaces are. InvalidArgument, KernelError."""
    if not chosen.store:
        return Underlay(folder=str(folder))
    address = _address(chosen.advertise)
    _, mtu = vxlan.underlay(address)
    vxlan.check(address, chosen.vxlan_port)
    return Underlay(address=address, mtu=mtu, port=chosen.vxlan_port, folder=str(folder))


def _address(text: str) -> str:
    """`192.0.2.1`, `192.0.2.1:2376` (Docker's port is for its own discovery), `eth0:2376`, `[fd00::1]:2376`."""
    host = text.rpartition(":")[0] if re.fullmatch(r"\[.*\]:\d+|[^:]*:\d+", text) else text
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.is_loopback or address.is_link_local:
            kind = "a loopback" if address.is_loopback else "a link-local"
            raise InvalidArgument(
                f"invalid --advertise {text}: no other node reaches {kind} address; give one of this host that they reach"
            )
        return str(address)
    found = vxlan.address_of(host)
    if not found:
        raise InvalidArgument(f"invalid --advertise {text}: neither an address of this host nor an interface that has one")
    return found
