"""Labs: container networking by hand, on the kernel, each step checked.

A *lab* (`course`) is a directory of `labs/`: `lab.toml` says which hosts there are, which steps, how each is checked and solved, and
`README.md` is written from it (`readme`). A *host* (`hosts`) is a process that holds namespaces: network, mounts (with a /run and an
/etc/resolv.conf of its own), host name and processes. A *place* (`places`) is a network namespace of a running lab: a host's own
(`host1`), one that somebody made there with `ip netns add` (`host1/red`), a container's (`host1/@web`), or an overlay network's
(`host1/%demo`). A *session* (`session`) is a lab that runs.

Nothing of a lab is ever in the machine's own network, nor in its /run/netns: cables are born between the hosts. All processes of a host
live in its process namespace, so a lab ends when its holders are killed, and the kernel takes the rest away.

Needs root, iproute2, util-linux (unshare, nsenter) and what the lab's `needs` names; no daemon.
"""
