#!/bin/sh
# provision-node.sh [OPTION]... NODE ADDRESS MEMBER=ADDRESS...: makes this machine the node NODE of a cluster.
#
# ADDRESS is the one by which the other nodes reach it. Each MEMBER is a node that runs etcd, with its address; if NODE is among them,
# etcd is set up here too. Run again, it changes and restarts what is not as asked, and nothing else.
#
#   --source DIR     netplug's sources (default: where this script lies, else /vagrant)
#   --netplug FILE   a netplug command that is there already: none is installed
#   --root DIR       everything is written below DIR, not below /; keep it short, there are sockets in it
#   --no-systemd     start the programs themselves; their pids are in DIR/run/etcd.pid and DIR/run/netplug.pid, what they say beside
#   --install-only   packages and netplug (for an image that has no network later); then NODE and what follows are not needed
#
# It does not wait until the cluster is whole: the first of several members answers only when the second is there.
set -eu

root=
source=
netplug=
systemd=yes
install_only=
while [ $# -gt 0 ]; do
    case "$1" in
    --source) source=$2 && shift 2 ;;
    --netplug) netplug=$2 && shift 2 ;;
    --root) root=$2 && shift 2 ;;
    --no-systemd) systemd= && shift ;;
    --install-only) install_only=yes && shift ;;
    --*) echo "provision-node.sh: unknown option $1" >&2 && exit 2 ;;
    *) break ;;
    esac
done
if [ $# -lt 3 ] && [ -z "$install_only" ]; then
    echo "usage: provision-node.sh [--source DIR] [--netplug FILE] [--root DIR] [--no-systemd] NODE ADDRESS MEMBER=ADDRESS..." >&2
    exit 2
fi

if [ -z "$source" ]; then
    source=$(cd "$(dirname "$0")/.." && pwd)
    [ -e "$source/packaging/netplug.service" ] || source=/vagrant
fi
[ -z "$systemd" ] || [ -n "$install_only" ] || [ -d /run/systemd/system ] || {
    echo "provision-node.sh: systemd does not run here: use --no-systemd" >&2
    exit 1
}

packages() {
    sed -n "s/^$1 := //p" "$source/Makefile"
}

# write FILE < TEXT: says in $changed that it was not so before.
write() {
    mkdir -p "$(dirname "$1")"
    cat >"$1.new"
    if cmp -s "$1.new" "$1"; then
        rm "$1.new"
    else
        mv "$1.new" "$1"
        changed=yes
    fi
}

# stop PID: by SIGTERM, and after half a minute by SIGKILL, as systemd does.
stop() {
    kill "$1"
    tries=300
    while kill -0 "$1" 2>/dev/null && [ "$tries" -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    kill -9 "$1" 2>/dev/null || true
}

# start NAME MARK COMMAND...: runs it unless it runs already, just so; NAME.pid is its process, NAME.command what was asked for.
# MARK is a part of the command that no other process has: a pid may be somebody else's by now.
start() {
    name=$1
    mark=$2
    shift 2
    mkdir -p "$root/run"
    pid=$(cat "$root/run/$name.pid" 2>/dev/null || true)
    changed=
    write "$root/run/$name.command" <<END
$*
END
    if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -e "$mark"; then
        [ -n "$changed" ] || return 0
        stop "$pid"
    fi
    setsid "$@" </dev/null >>"$root/run/$name.log" 2>&1 &
    echo $! >"$root/run/$name.pid"
}

# unit NAME: starts it, anew if its files have changed.
unit() {
    systemctl daemon-reload
    systemctl --quiet enable "$1"
    systemctl --no-block "${changed:+re}start" "$1"
}

# Packages. (Their lists are the Makefile's; the script does nothing where all are there.)
# shellcheck disable=SC2046  # the lists are meant to be split
sh "$source/packaging/install-packages.sh" python3 $(packages SYSTEM_PACKAGES) $(packages CLUSTER_PACKAGES) $(packages LAB_PACKAGES)

# netplug, in a virtual environment of its own, anew when its sources are. In a checkout its labs are behind a link, which is followed.
changed_netplug=
if [ -z "$netplug" ]; then
    venv=$root/opt/netplug
    netplug=$venv/bin/netplug
    version=$(cd "$source" && find -L netplug drivers ipam pyproject.toml -type f ! -name '*.pyc' | sort | xargs sha256sum | sha256sum)
    if [ "$version" != "$(cat "$venv/version" 2>/dev/null || true)" ]; then
        [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
        # From a copy: building leaves things behind in the sources, and a later build takes them for its own.
        copy=$(mktemp -d)
        cp -rL "$source/netplug" "$source/drivers" "$source/ipam" "$source/pyproject.toml" "$source/README.md" "$copy"
        [ ! -e "$netplug" ] || "$venv/bin/python" -m pip uninstall --quiet --yes netplug # of the same version, perhaps
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$copy"
        rm -r "$copy"
        echo "$version" >"$venv/version"
        changed_netplug=yes
    fi
fi

[ -z "$install_only" ] || exit 0

# What the members are, as etcd and netplug want it told.
node=$1
address=$2
shift 2
initial=
store=
member=
for one in "$@"; do
    name=${one%%=*}
    at=${one#*=}
    initial="$initial${initial:+,}$name=http://$at:2380"
    store="$store${store:+,}$at:2379"
    [ "$name" != "$node" ] || member=yes
done

# etcd
if [ -n "$member" ]; then
    data=$root/var/lib/etcd/netplug
    mkdir -p "$data"
    chmod 700 "$data"
    set -- etcd --name "$node" --data-dir "$data" \
        --listen-client-urls "http://$address:2379,http://127.0.0.1:2379" --advertise-client-urls "http://$address:2379" \
        --listen-peer-urls "http://$address:2380" --initial-advertise-peer-urls "http://$address:2380" \
        --initial-cluster "$initial" --initial-cluster-token netplug \
        --auto-compaction-retention 1 # hours of history: without it etcd keeps all, until its quota is full
    changed=
    write "$root/etc/systemd/system/etcd.service" <<END
# Written by provision-node.sh: the member $node of netplug's cluster.
[Unit]
Description=etcd, for netplug
After=network-online.target
Wants=network-online.target

[Service]
# It is ready when most members are, however long that takes.
Type=notify
TimeoutStartSec=infinity
ExecStart=/usr/bin/$*
User=etcd
Restart=on-failure
RestartSec=1s
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
END
    if [ -n "$systemd" ]; then
        chown -R etcd: "$data"
        unit etcd
    else
        start etcd "$data" "$@"
    fi
fi

# netplug's daemon
flags="--store etcd://$store --advertise $address --node $node"
changed=$changed_netplug
write "$root/etc/systemd/system/netplug.service" <"$source/packaging/netplug.service"
write "$root/etc/default/netplug" <<END
# Written by provision-node.sh.
NETPLUG_FLAGS="$flags"
END
if [ -n "$systemd" ]; then
    ln -sf "$netplug" "$root/usr/local/bin/netplug"
    unit netplug
else
    run=$root/run/netplug
    # shellcheck disable=SC2086  # the flags are meant to be split
    start netplug "$run/netplug.sock" "$netplug" daemon --socket "$run/netplug.sock" --run-dir "$run" --state-dir "$root/var/lib/netplug" $flags
fi
echo "$node: netplug at $address over etcd://$store"
