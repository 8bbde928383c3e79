#!/bin/sh
# install-packages.sh PYTHON PACKAGE...: installs the Debian packages that are missing, and starts no service.
#
# With everything there, nothing is asked and nothing is fetched. PYTHON is the interpreter that has to be able to make virtual
# environments; Debian ships that ability as a package of its own.
set -eu

python=$1
shift
"$python" -c 'import ensurepip, venv' 2>/dev/null || set -- "$@" python3 python3-venv

missing=
for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing, and only root can install them:$missing" >&2
    exit 1
fi

# dockerd and etcd are wanted as programs for tests, not as services: the one would change this machine's network, the other
# listen on it. Where no policy says otherwise, ours forbids starts while packages are set up (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # the list is meant to be split
apt-get install -qq --no-install-recommends $missing >/dev/null

# Nor at the next boot, since they were not there before.
if command -v systemctl >/dev/null; then
    case "$missing" in
    *docker.io*) systemctl --quiet disable docker.service docker.socket containerd.service 2>/dev/null || true ;;
    esac
    case "$missing" in
    *etcd-server*) systemctl --quiet disable etcd.service 2>/dev/null || true ;;
    esac
fi
