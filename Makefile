# make setup | demo | cluster-demo | docker-demo | labs | test | lint | docs | bench | clean. As root, on Debian 12 or newer: it makes network namespaces.

# The distribution's own where it will do, for it is an optimized build: what others put before it in PATH often is not, and takes a third longer.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
# More than processors: many tests wait for a lease, a time limit or another engine.
JOBS ?= 3
TESTS ?= tests
VENV := .venv
BIN := $(VENV)/bin

# What the daemon runs on, what a cluster needs beside it, what labs are typed with, then what tests and benchmarks hold it against.
SYSTEM_PACKAGES := runc conmon nftables libnftables1 iproute2 conntrack procps busybox-static iputils-ping iputils-arping libpcap0.8
CLUSTER_PACKAGES := etcd-client etcd-server
LAB_PACKAGES := iptables librsvg2-bin tcpdump
TEST_PACKAGES := docker.io docker-compose $(LAB_PACKAGES) dnsmasq-base dnsperf $(CLUSTER_PACKAGES) ethtool iperf3 openssl ruby shellcheck tshark

.PHONY: setup demo cluster-demo docker-demo labs test lint docs bench clean

setup: .setup-done

.setup-done: pyproject.toml Makefile
	@sh packaging/install-packages.sh $(PYTHON) $(SYSTEM_PACKAGES) $(TEST_PACKAGES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

# KEEP=1 leaves it up and says what to try.
demo: setup
	@$(BIN)/netplug demo $(if $(KEEP),--keep)

# Two hosts and an etcd; KEEP=1 as above.
cluster-demo: setup
	@sh packaging/install-packages.sh $(PYTHON) $(CLUSTER_PACKAGES)
	@$(BIN)/netplug demo --cluster $(if $(KEEP),--keep)

# A dockerd and netplug on one host.
docker-demo: setup
	@$(BIN)/netplug demo --docker

# Every lab from start to end, each step checked before and after; LABS="1 3" some of them.
labs: setup
	@$(BIN)/python -m netplug.labs $(LABS)

test: setup
	@$(BIN)/python -m pytest --quiet -n $(JOBS) --dist worksteal $(TESTS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# docs/firewall.md, from the rules as they are; the labs' texts and pictures.
docs: setup
	@$(BIN)/python -m tests.golden
	@$(BIN)/python -m netplug.labs --write

# BENCH="--only latency,dns --rounds 9" measures a part; only a whole run writes BENCHMARKS.md and docs/bench.
bench: setup
	@$(BIN)/python -m tests.bench $(BENCH)

clean:
	rm -rf $(VENV) .setup-done build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
