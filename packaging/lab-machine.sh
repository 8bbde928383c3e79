#!/bin/sh
# lab-machine.sh [--netplug FILE] [--uplink LINK] LAB HOST: makes this machine the host HOST of a lab, as the lab's text finds it.
#
# For machines that are there for it, such as the Vagrantfile's, set up by provision-node.sh: it changes this machine's own network. The
# link to the other hosts is called `uplink` afterwards; it is LINK, or the one with an address of 192.168.205.0/24. netplug and etcd are
# stopped, because the lab starts its own where it needs them. Nothing of it outlives the next start of the machine.
set -eu

netplug=netplug
uplink=
while [ $# -gt 0 ]; do
    case "$1" in
    --netplug) netplug=$2 && shift 2 ;;
    --uplink) uplink=$2 && shift 2 ;;
    --*) echo "lab-machine.sh: unknown option $1" >&2 && exit 2 ;;
    *) break ;;
    esac
done
if [ $# -ne 2 ]; then
    echo "usage: lab-machine.sh [--netplug FILE] [--uplink LINK] LAB HOST" >&2
    exit 2
fi

# Before anything is changed: whether there is such a lab, with such a host.
prepare=$("$netplug" lab commands "$1" "$2")

[ -n "$uplink" ] || uplink=$(ip -o -4 address show to 192.168.205.0/24 | awk 'NR == 1 { print $2 }')
if [ -z "$uplink" ]; then
    echo "lab-machine.sh: no link here has an address of 192.168.205.0/24: name the one to the other hosts with --uplink" >&2
    exit 1
fi

ip link show "$uplink" >/dev/null

if [ -d /run/systemd/system ]; then
    systemctl stop netplug etcd
fi

# The preparations give it its address. A link that is up cannot be renamed before Linux 6.2.
ip address flush dev "$uplink" scope global
if [ "$uplink" != uplink ]; then
    ip link set "$uplink" down
    ip link set "$uplink" name uplink
fi
hostname "$2"
printf '%s\n' "$prepare" | sh -e
echo "this machine is $2 of lab $1"
