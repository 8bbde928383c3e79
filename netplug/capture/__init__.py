"""Seeing packets: `netplug capture`. It works in the process of whoever may see them (root), and needs the daemon only to be told where.

A *point* (`points`) is a link of a namespace, and what is asked for there. A *tap* (`netplug.kernel.tap`) is the socket that copies its
packets. `stream` reads what another capture writes, `merging` puts the packets of all in the order of their times, `pcapng` writes and
reads files, `filters` is libpcap's language, `lines` says what a packet is, in one line.

Nothing is changed: no link is made promiscuous, no rule is set. Only `lines` needs scapy, and imports it when it is called.
"""
