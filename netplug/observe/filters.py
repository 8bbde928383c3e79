"""Other tools' firewalls: chains that will drop what we allow, and who else is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from netplug.kernel.chains import Chain
from netplug.kernel.firewall import neighbours
from netplug.observe.situation import Finding, Situation, error, ok, warning

CHECK = "firewall"
MARK = f"{neighbours.MARK:#x}"
_IPTABLES = {"ip filter FORWARD": "iptables", "ip6 filter FORWARD": "ip6tables"}
_SIGNS: tuple[tuple[str, Callable[[Chain], bool]], ...] = (
    ("dockerd", lambda chain: chain.name in ("DOCKER-USER", "DOCKER")),
    ("ufw", lambda chain: chain.name.startswith(("ufw-", "ufw6-"))),
    ("firewalld", lambda chain: chain.table.endswith(" firewalld")),
    ("kube-proxy", lambda chain: chain.name.startswith("KUBE-")),
    ("netavark", lambda chain: chain.table.endswith(" netavark") or chain.name.startswith("NETAVARK")),
)


def check(situation: Situation, chains: Sequence[Chain] | None) -> Iterator[Finding]:
    if chains is None:
        yield warning(CHECK, "what other tools drop could not be looked at: nft is not installed", "install nftables")
        return
    for tool, sign in _SIGNS:
        if any(sign(chain) for chain in chains):
            yield ok(CHECK, f"{tool} keeps rules on this host")
    dropping = [chain for chain in chains if chain.drops]
    yield from (_judged(chain, situation) for chain in dropping)
    if not dropping:
        yield ok(CHECK, "nobody drops what is forwarded")


def _judged(chain: Chain, situation: Situation) -> Finding:
    backend = situation.settings.backend
    found = f"{chain} drops what nothing in it allows"
    bridges = "allow there what comes from and goes to the networks' bridges"
    if backend == "none":
        # Nobody marks what is allowed, so there is no rule that fits all networks.
        return error(CHECK, f"{found}: containers have no way in or out, and --iptables=false leaves it so", bridges)
    if (chain.priority or 0) < neighbours.PRIORITIES[backend]:
        remedy = f"{bridges}, or give it a priority above {neighbours.PRIORITIES[backend]}"
        return warning(CHECK, f"{found}, before our rules can say what they allow", remedy)
    if chain.ours:
        return ok(CHECK, f"{found}; a rule of ours there lets through what our own rules have accepted")
    if situation.running:
        return error(CHECK, f"{found}, and no rule of ours is there: containers have no way in or out", _rule(chain))
    return warning(CHECK, found, "nothing to do: the daemon puts a rule of its own there while it runs")


def _rule(chain: Chain) -> str:
    """The command that lets us through."""
    if (program := _IPTABLES.get(f"{chain.table} {chain.name}")) is None:
        return f"nft insert rule {chain} meta mark and {MARK} == {MARK} accept"
    variant = "-legacy" if chain.legacy else ""
    return f"{program}{variant} -I FORWARD -m mark --mark {MARK}/{MARK} -m comment --comment {neighbours.COMMENT} -j ACCEPT"
