"""The firewall seam: what the executor asks of a firewall, whichever tool keeps the rules.

Drivers say *what* is wanted (`Isolate`, `Masquerade`, `Guard`, `AllowPeer`, `Publish`, `Direct`, `Reach`, `DnsRedirect`: data, in
`netplug.plan`); a backend knows *how*. All backends pass the same tests. What they must keep to:

- all steps of one call take effect together or not at all;
- nothing that an administrator wrote is changed: own tables only, and the chain `user`, which is asked first, is never flushed;
- what is there already, or gone already, is no error and no change.

Modules of `nftables`, the backend of choice: `ruleset` (the rules that never change), `elements` (what changes: one op is a few elements of
a map), `tables` (what is in the host), `libnftables` (a transaction, in process). Of `iptables`: `iptables_rules` (both kinds of rules),
`iptables_chains` (what the programs print and read), `iptables_programs` (running them), `iptables_bridge` (what iptables cannot do).
`none` has no rules. `leftovers`: the change from one to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from netplug.errors import InvalidArgument
from netplug.plan import DnsRedirect, FirewallOp, Remove, Step

FirewallStep: TypeAlias = FirewallOp | Remove
"""A firewall op, or `Remove` of one."""

BACKENDS = ("nftables", "iptables", "none")


class Surplus(NamedTuple):
    """Something in our maps or chains that nobody has asked us for, and the command that takes it out."""

    words: str
    command: str


class Gaps(NamedTuple):
    """What a look found; none of it has been changed."""

    steps: list[Step]
    """Steps that do not hold in the kernel."""
    rules: Sequence[str] = ()
    """Words for rules of ours that never change, and are missing or changed."""
    surplus: Sequence[Surplus] = ()


class Leftover(NamedTuple):
    """What another backend has left in a namespace: an nftables table of ours, or our chains in iptables."""

    namespace: str
    words: str
    commands: tuple[str, ...]
    """That take it away."""
    table: str = ""
    variant: str = ""
    family: str = ""
    """Without a table: which program has the chains (`nft`, `legacy`), of which family."""


class Firewall(Protocol):
    """One backend. Calls are synchronous, quick (about a millisecond) and made from one thread.

    `namespace` is a path, or `HOST`: the namespace in which the backend was started.
    """

    name: str

    def start(self) -> None:
        """Load the rules that never change into the caller's namespace. Doing it again keeps all elements and every `user` chain."""

    def apply(self, namespace: str, steps: Sequence[FirewallStep]) -> list[Step]:
        """Make the steps true in one transaction, and return those that changed something, in order.

        Raises KernelError if one cannot be done; then nothing has changed. A host port that leads elsewhere already is such a case.
        """

    def replace(self, steps: Sequence[FirewallOp]) -> None:
        """In HOST, make our state exactly that of these ops, in one transaction: no packet meets a half-filled table."""

    def heal(self) -> list[str]:
        """Compare HOST with what we made it, and put back what somebody has taken; words for each such thing, `[]` if all is well.

        What an administrator wrote (chain `user`, other tables) is none of ours, and no reason to do anything.
        """

    def damage(self) -> list[str]:
        """What `heal` would put back, in the same words; nothing is changed."""

    def redirects(self, op: DnsRedirect) -> bool:
        """Whether names are redirected so in the namespace that the calling thread is in; False also where that takes a while to tell."""

    def survey(self, namespace: str, steps: Sequence[FirewallOp]) -> Gaps:
        """Look in the kernel whether these hold, and in HOST whether all else is as we made it; change nothing."""

    def mend(self) -> None:
        """As `heal` in HOST, and take out of our maps and chains what nobody has asked us for."""

    def explain(self, namespace: str, steps: Sequence[FirewallStep]) -> list[str]:
        """Shell commands that do what `apply` does, to paste after those of `explain_base`."""

    def explain_base(self) -> list[str]:
        """Shell commands that load what `start` loads."""

    def clear(self) -> None:
        """Take everything of ours out of HOST, `user` chains included."""


def backend(name: str, *, accept_mark: str = "") -> Firewall:
    """The backend of that name; InvalidArgument says which there are. Packets with `accept_mark` are let into every network."""
    match name:
        case "nftables":
            from netplug.kernel.firewall.nftables import Nftables

            return Nftables(accept_mark=accept_mark)
        case "iptables":
            from netplug.kernel.firewall.iptables import Iptables

            return Iptables(accept_mark=accept_mark)
        case "none":
            from netplug.kernel.firewall.none import NoFirewall

            return NoFirewall()
        case _:
            raise InvalidArgument(f'unknown firewall backend "{name}": there is {", ".join(BACKENDS)}')


def clean_up_others(name: str, sandboxes: Iterable[str] = ()) -> list[str]:
    """Take away what backends other than `name` left in the caller's namespace and in `sandboxes`; words for each such thing.

    To be called when the backend has its own rules in place, so that there is no gap.
    """
    from netplug.kernel.firewall.leftovers import clean_up

    return clean_up(name, sandboxes)


def others_leftovers(name: str, sandboxes: Iterable[str] = ()) -> list[Leftover]:
    """What `clean_up_others` would take away, and what is left in sandboxes alone; nothing is changed."""
    from netplug.kernel.firewall.leftovers import find

    return find(name, sandboxes)


def remove_leftovers(leftovers: Iterable[Leftover]) -> None:
    from netplug.kernel.firewall.leftovers import remove

    remove(leftovers)
