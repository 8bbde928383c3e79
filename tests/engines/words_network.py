"""`network …`: lines that Docker and netplug are to answer alike."""

from __future__ import annotations

from tests.engines.words import Different, Story

_DAEMON = "Error response from daemon: "
_BY_FIELD = "netplug's rows are plain maps; Go names its own type"
_IPV4 = "Docker tells since 28 whether a network has IPv4"
_HELP = "netplug's help is in a form of its own"
_SAYS_MORE = "netplug says what would do, or who is in the way"
_STRICT = "what a container's name cannot be, a network's cannot either"

READING: tuple[Story, ...] = (
    ("network ls",),
    ("network ls --no-trunc",),
    ("network ls -q",),
    ("network ls --filter driver=bridge",),
    ("network ls --filter name=dem --filter driver=bridge --format {{.Name}}",),
    ("network ls --filter label=tier=front --format '{{.Name}} {{.Label \"tier\"}} {{.Labels}} {{.Internal}} {{.IPv6}} {{.Scope}}'",),
    ("network ls --filter type=custom --format {{.Name}}", "network ls --filter type=builtin --format {{.Name}}"),
    ("network ls --filter scope=local -q --no-trunc",),
    (
        Different("network ls --filter dangling=true --format {{.Name}}", "Docker does not look at containers here", out="free\ninside\n"),
        Different("network ls --filter dangling=0 --format {{.Name}}", "the same", out="bridge\ndemo\nhost\nnone\nother\n"),
    ),
    ("network ls --filter dangling=maybe",),
    ("network ls --filter type=odd",),
    ("network ls --filter foo=bar",),
    ("network ls --filter foo",),
    ("network ls --format 'table {{.Name}}\\t{{.Driver}}'",),
    (
        Different(
            "network ls --filter name=^demo$ --format '{{json .}}'",
            _IPV4,
            out='{"CreatedAt":"<date>","Driver":"bridge","ID":"<id>","IPv4":"true","IPv6":"false","Internal":"false","Labels":"",'
            '"Name":"demo","Scope":"local"}\n',
        ),
    ),
    (
        Different(
            "network ls --format {{.Foo}}",
            _BY_FIELD,
            err='failed to execute template: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"\n',
        ),
    ),
    (Different("network ls --format {{.Name", "as later Docker says it", err="failed to parse template: template: :1: unclosed action\n"),),
    ("network ls extra",),
    ("network inspect free --format '{{json .IPAM}}'",),
    (
        Different(
            "network inspect demo --format '{{(index .IPAM.Config 0).Subnet}} {{range .IPAM.Config}}{{.Gateway}}{{end}}'",
            "Docker leaves out the gateway that it has chosen on a subnet of the user's",
            out="10.9.0.0/24 10.9.0.1\n",
        ),
    ),
    ("network inspect inside --format '{{.Internal}} {{.EnableIPv6}} {{.Driver}} {{.Scope}} {{.Attachable}} {{.Ingress}}'",),
    ("network inspect inside --format '{{json .Labels}} {{.Labels}} {{json .Options}} {{.Options}}'",),
    ("network inspect other --format '{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}}, {{end}}'",),
    ("network inspect other --format '{{json .Containers}}'",),
    ("network inspect -v demo --format {{.Name}}",),
    ("network inspect missing",),
    ("network inspect demo missing --format {{.Name}}",),
    ("network inspect missing absent",),
    ("network inspect demo --format {{.Name",),
    ("network inspect demo --format '{{foo .Name}}'",),
    ("network inspect",),
)

UNKNOWN_DRIVER: Story = (
    Different(
        "network create -d nosuch fresh",
        _SAYS_MORE,
        err=f'{_DAEMON}plugin "nosuch" not found: the drivers here are bridge, host, ipvlan, macvlan, none, null, overlay\n',
    ),
)
"""dockerd looks for the plugin for 15 seconds."""

CREATING: tuple[Story, ...] = (
    (
        "network create --subnet 10.20.0.0/24 --gateway 10.20.0.5 --ip-range 10.20.0.128/25 --aux-address r=10.20.0.7 --label z=1 --label a"
        " --opt com.docker.network.driver.mtu=1400 --attachable fresh",
        "network inspect fresh --format '{{json .IPAM}} {{json .Labels}} {{json .Options}} {{.Attachable}}'",
        "network rm fresh",
    ),
    ("network create --internal=false -d bridge fresh", "network rm fresh"),
    ("network create demo",),
    ("network create --subnet 10.9.0.0/25 fresh",),
    ("network create --subnet 10.9.0.0/24 fresh",),
    ("network create --subnet 10.8.0.0/15 fresh",),
    (
        Different(
            "network create --subnet 10.300.0.0/24 fresh",
            "said once",
            err=f"{_DAEMON}invalid CIDR address: 10.300.0.0/24\n",
        ),
    ),
    (Different("network create --subnet 10.20.0.0 fresh", "said once", err=f"{_DAEMON}invalid CIDR address: 10.20.0.0\n"),),
    (
        Different(
            "network create --subnet 10.20.0.5/24 fresh",
            "as Docker since 28",
            code=1,
            out="",
            err=f"{_DAEMON}invalid network config: invalid subnet 10.20.0.5/24: it should be 10.20.0.0/24\n",
        ),
        Different("network rm fresh", "there is none", code=1, out="", err=f"{_DAEMON}network fresh not found\n"),
    ),
    ("network create --subnet 10.20.0.0/24 --gateway 10.21.0.1 fresh",),
    ("network create --subnet 10.20.0.0/24 --gateway nowhere fresh",),
    ("network create --gateway 10.20.0.1 fresh",),
    ("network create --ip-range 10.20.0.0/25 fresh",),
    ("network create --subnet 10.20.0.0/24 --ip-range 10.21.0.0/25 fresh",),
    ("network create --subnet 10.20.0.0/24 --ip-range nowhere fresh",),
    ("network create --subnet 10.20.0.0/24 --aux-address a=10.21.0.5 fresh",),
    (
        Different(
            "network create --subnet 10.20.0.0/24 --aux-address 10.20.0.5 fresh",
            "dockerd's sentence ends where the address is to be",
            err="invalid aux-address 10.20.0.5: NAME=ADDRESS is needed\n",
        ),
    ),
    ("network create --subnet 10.20.0.0/24 --aux-address a=10.20.0.1 fresh",),
    ("network create --subnet 10.20.0.0/24 --gateway 10.20.0.5 --aux-address a=10.20.0.5 fresh",),
    ("network create --subnet 10.20.0.0/24 --gateway 10.20.0.1 --gateway 10.20.0.2 fresh",),
    ("network create --subnet 10.20.0.0/24 --subnet 10.20.0.0/25 fresh",),
    ("network create --subnet 10.20.0.0/24 --subnet 10.21.0.0/24 fresh",),
    ("network create bridge", "network create host", "network create none", "network create default"),
    ("network create -d host fresh", "network create -d null fresh"),
    (
        Different(
            "network create --opt com.docker.network.driver.mtu=abc fresh",
            _SAYS_MORE,
            err=f'{_DAEMON}invalid MTU "abc": a number from 68 to 65535 is needed\n',
        ),
    ),
    (
        Different(
            "network create --opt com.docker.network.bridge.enable_icc=maybe fresh",
            _SAYS_MORE,
            err=f'{_DAEMON}invalid value for com.docker.network.bridge.enable_icc: "maybe" is neither true nor false\n',
        ),
    ),
    (
        "network create --opt com.docker.network.bridge.name=br-mine fresh",
        Different(
            "network create --opt com.docker.network.bridge.name=br-mine again",
            _SAYS_MORE,
            err=f"{_DAEMON}cannot create network <ID> (br-mine): conflicts with network <ID> (br-mine): networks have same bridge name"
            " (the other is fresh)\n",
        ),
        "network rm fresh",
    ),
    (
        Different(
            "network create a/b",
            _STRICT,
            code=1,
            out="",
            err=f'{_DAEMON}invalid network name "a/b": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed\n',
        ),
        Different("network rm a/b", "there is none", code=1, out="", err=f"{_DAEMON}network a/b not found\n"),
    ),
    (
        Different(
            "network create --ipv6 fresh", "netplug has IPv6 pools to take one from, as later Docker has", code=0, out="<ID>\n", err=""
        ),
        Different("network rm fresh", "there is one", code=0, out="fresh\n", err=""),
    ),
    ("network create --foo fresh",),
    ("network create -x fresh",),
    ("network create --subnet",),
    ("network create --internal=maybe fresh",),
    ("network create --label =x fresh",),
    ("network create", "network create two names"),
)

REMOVING: tuple[Story, ...] = (
    ("network rm missing",),
    ("network rm bridge host none",),
    (
        Different(
            "network rm demo",
            _SAYS_MORE,
            err=f"{_DAEMON}error while removing network: network demo id <ID> has active endpoints (web, both)\n",
        ),
    ),
    ("network create fresh", "network rm missing fresh"),
    ("network rm",),
    (Different("network rm -f missing", "as Docker since 23", code=0, err=""),),
    (
        "network create --label away fresh",
        "network prune -f --filter label=elsewhere",
        "network prune -f --filter label=away",
        "network prune -f --filter label=away",
    ),
    ("network prune -f --filter foo=bar",),
    (
        Different(
            "network prune -f --filter until=nope",
            _SAYS_MORE,
            err=f"{_DAEMON}invalid time 'nope': give seconds since 1970, RFC 3339, or a duration such as 10m\n",
        ),
    ),
    ("network prune --filter label=nothing",),
    (Different("network foo", _HELP, err="netplug: unknown command: netplug network foo\nSee 'netplug network --help'.\n"),),
)

CONNECTING: tuple[Story, ...] = (
    (
        "network connect --ip 10.9.0.20 --alias pl demo plain",
        "inspect plain --format '{{(index .NetworkSettings.Networks \"demo\").IPAddress}} {{len .NetworkSettings.Networks}}'",
        "network connect demo plain",
        "exec both sh -c 'ping -c 1 -w 5 pl >/dev/null'",
        "network disconnect demo plain",
        "network disconnect demo plain",
    ),
    ("network connect bridge web", "exec web ip route", "network disconnect bridge web"),
    ("network connect missing web", "network connect demo missing"),
    ("network connect --ip 172.17.0.77 bridge web",),
    ("network connect --alias x bridge web",),
    (
        Different(
            "network connect --ip 10.9.0.10 demo plain",
            _SAYS_MORE,
            err=f"{_DAEMON}Address already in use: 10.9.0.10 belongs to web\n",
        ),
    ),
    ("network connect --ip 10.77.0.1 demo plain",),
    (
        Different(
            "network connect --ip nowhere demo plain",
            "Docker's has a bracket too many",
            err=f"{_DAEMON}invalid IPv4 address: nowhere\n",
        ),
    ),
    (
        Different(
            "network connect --ip 172.18.0.50 free plain",
            "an address is as good on a subnet that was chosen for the user",
            code=0,
            err="",
        ),
        Different("network disconnect free plain", "it is connected", code=0, err=""),
    ),
    ("network connect --driver-opt a=b demo plain", "network disconnect demo plain"),
    ("network connect --driver-opt a demo plain",),
    ("network connect host web", "network connect none web", "network connect demo hosted", "network connect demo quiet"),
    (
        "network connect other made",
        "inspect made --format '{{range $name, $one := .NetworkSettings.Networks}}{{$name}}={{$one.IPAddress}} {{end}}'",
        Different(
            "network connect other made",
            "twice is a mistake also where a container does not run",
            code=1,
            err=f"{_DAEMON}endpoint with name made already exists in network other\n",
        ),
        "network disconnect other made",
        Different(
            "network disconnect other made",
            "one sentence for one mistake",
            err=f"{_DAEMON}container <ID> is not connected to network other\n",
        ),
    ),
    ("network disconnect other web", "network disconnect -f other web"),
    ("network disconnect missing web", "network disconnect demo missing"),
    (
        Different(
            "network disconnect host hosted",
            "as later Docker says it",
            err=f"{_DAEMON}container cannot be disconnected from host network - container was created in host network mode\n",
        ),
    ),
    (
        "run -d --name lone --stop-signal KILL --network none words sleep 1000000",
        "network disconnect none lone",
        "network connect --ip 10.9.0.30 demo lone",
        "exec lone sh -c 'ping -c 1 -w 5 web >/dev/null'",
        "inspect lone --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}'",
        "rm -f lone",
    ),
    ("network connect --foo demo plain",),
    ("network connect demo", "network disconnect demo"),
)

STORIES = (*READING, *CREATING, *REMOVING, *CONNECTING)
