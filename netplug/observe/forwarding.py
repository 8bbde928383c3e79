"""Does the kernel forward at all: forwarding, the IPv6 default route that forwarding takes away, reverse path filters, br_netfilter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from netplug.kernel.facts import ROUTER_ADVERTISEMENT, HostRoute
from netplug.observe.situation import Finding, Situation, error, ok, warning

_STRICT = 1

Read = Callable[[str], int | None]
"""A sysctl's number; None where there is none."""


def check(situation: Situation, routes: Sequence[HostRoute], read: Read) -> Iterator[Finding]:
    yield _ipv4(situation, read("net.ipv4.ip_forward"))
    yield from _ipv6(situation, routes, read)
    yield from reverse_path(routes, read)
    yield from bridged(situation, read)


def _ipv4(situation: Situation, forwarding: int | None) -> Finding:
    check = "forwarding"
    if forwarding:
        return ok(check, "net.ipv4.ip_forward is 1")
    if not situation.settings.ip_forward:
        remedy = "sysctl -w net.ipv4.ip_forward=1, or leave --ip-forward=false out"
        return error(check, "net.ipv4.ip_forward is 0, and --ip-forward=false leaves it so: no way out, no published ports", remedy)
    if not situation.running:
        return ok(check, "net.ipv4.ip_forward is 0; the daemon switches it on")
    remedy = "sysctl -w net.ipv4.ip_forward=1, and look in /etc/sysctl.d for who sets it"
    return error(check, "somebody has switched net.ipv4.ip_forward off: no way out, no published ports", remedy)


def _ipv6(situation: Situation, routes: Sequence[HostRoute], read: Read) -> Iterator[Finding]:
    check, forwarding = "forwarding IPv6", read("net.ipv6.conf.all.forwarding")
    if forwarding is None:
        if situation.ipv6:
            yield error(check, "this kernel has IPv6 switched off", "start it without ipv6.disable=1, or make networks without --ipv6")
        else:
            yield ok(check, "this kernel has IPv6 switched off; no network needs it")
        return
    if forwarding:
        yield ok(check, "net.ipv6.conf.all.forwarding is 1")
    elif not situation.ipv6:
        yield ok(check, "net.ipv6.conf.all.forwarding is 0; no network needs it")
    elif situation.settings.ip_forward:
        yield ok(check, "net.ipv6.conf.all.forwarding is 0; the daemon switches it on for its networks")
    else:
        yield error(
            check, "net.ipv6.conf.all.forwarding is 0, and --ip-forward=false leaves it so", "sysctl -w net.ipv6.conf.all.forwarding=1"
        )
    yield from advertised(routes, read)


def advertised(routes: Sequence[HostRoute], read: Read) -> Iterator[Finding]:
    """An uplink whose IPv6 default route comes from a router's advertisements: the kernel drops it when it begins to forward."""
    for link in sorted({route.link for route in routes if route.default and route.protocol == ROUTER_ADVERTISEMENT}):
        key = f"net.ipv6.conf.{link.replace('.', '/')}.accept_ra"
        if read(key) != 1:
            yield ok("accept_ra", f"the IPv6 default route by {link} is kept while this host forwards")
            continue
        found = (
            f"{link} has its IPv6 default route from router advertisements, and {key} is 1: it is lost when IPv6 forwarding is switched on"
        )
        yield warning("accept_ra", found, f"sysctl -w {key}=2 before the first network with --ipv6")


def reverse_path(routes: Sequence[HostRoute], read: Read) -> Iterator[Finding]:
    """Strict filters drop what comes in by another link than answers would go out by."""
    check = "rp_filter"
    ways = sorted({route.link for route in routes if route.default and route.link and route.subnet.version == 4})
    everywhere = read("net.ipv4.conf.all.rp_filter") or 0
    strict = [link for link in ways if max(everywhere, read(f"net.ipv4.conf.{link.replace('.', '/')}.rp_filter") or 0) == _STRICT]
    if len(ways) < 2 or not strict:
        yield ok(check, "one way out" if len(ways) < 2 else "not strict")
        return
    found = f"several ways out ({', '.join(ways)}) and rp_filter=1 on {', '.join(strict)}: answers that come by another way are dropped"
    yield warning(check, found, " ".join(["sysctl -w", *(f"net.ipv4.conf.{link.replace('.', '/')}.rp_filter=2" for link in strict)]))


def bridged(situation: Situation, read: Read) -> Iterator[Finding]:
    """Whether what stays inside one bridge passes iptables too. Both work; each has its caveat."""
    check = "br_netfilter"
    for name in ("iptables", "ip6tables"):
        match read(f"net.bridge.bridge-nf-call-{name}"):
            case None:
                yield ok(check, "not loaded: what stays inside a bridge passes our own rules only")
                break
            case 0:
                yield ok(check, f"bridge-nf-call-{name} is 0: what stays inside a bridge passes our own rules only")
            case _:
                yield ok(check, f"bridge-nf-call-{name} is 1: neighbours on one bridge pass other tools' FORWARD rules too (see firewall)")
    if read("net.bridge.bridge-nf-call-arptables"):
        yield ok(check, "bridge-nf-call-arptables is 1: ARP inside a bridge passes arptables, should somebody have rules there")
