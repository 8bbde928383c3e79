"""Looking at the host, and saying what is the matter: changes nothing.

`preflight` runs all checks. A check is pure: it takes facts (read by `netplug.kernel`) and a `Situation` (settings, networks, ports, what
somebody wants to make), and gives findings. One module per subject: `pools`, `ports`, `directories`, `forwarding`, `filters`, `mtu`,
`parts`, `programs`, `limits`.
"""
