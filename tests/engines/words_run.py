"""`run` and its many flags: what Docker and netplug are to answer alike."""

from __future__ import annotations

from tests.engines.words import Different, Story

_SAYS_MORE = "netplug says who is in the way, or what is wrong"
_SIGNED = "netplug: Error response from daemon: "
_DRIVER = f"{_SIGNED}driver failed programming external connectivity on endpoint fresh (<ID>): "
_TOO_LATE = "Docker 20.10 takes it and forgets it, later ones refuse it too"
_EXITS = "run --rm --name fresh "

COMMANDS: tuple[Story, ...] = (
    (f"{_EXITS}--network none words sh -c 'echo a; echo b >&2; exit 5'",),
    (f"{_EXITS}--network none words nosuchcommand", "ps -aq --filter name=fresh"),
    (f"{_EXITS}--network none words /etc",),
    (f"{_EXITS}-u nosuch words true", f"{_EXITS}-u 99999999999 words true"),
    (f"{_EXITS}-v /nosuch-source:/x:badmode words true",),
    (f"{_EXITS}--cap-add FOO words true", f"{_EXITS}--cap-drop foo words true"),
    (f"{_EXITS}--stop-signal FOO words true", f"{_EXITS}--stop-timeout x words true"),
    (f"{_EXITS}--sysctl foo=1 words true", f"{_EXITS}--sysctl net.ipv4.ip_forward=1 --network host words true"),
    (f"{_EXITS}-e =x words true", f"{_EXITS}-l =x words true", f"{_EXITS}--env-file /nosuch words true"),
    ("run --rm --name web words true", "run --rm --name 'a b' words true"),
    ("create --name web words true", "create -p foo words", "create -a foo words", "create --foo words", "create"),
    (f"{_EXITS}words", f"{_EXITS}-w relative words true"),
    ("run --foo words", "run -x words", "run --name", "run -it --rm words true"),
    ("run -d --rm -a stdout words true", "run --rm -a foo words true"),
    (
        Different(
            "run",
            "as later Docker says it",
            err="\"netplug run\" requires at least 1 argument.\nSee 'netplug run --help'.\n\nUsage:  netplug run IMAGE [COMMAND]"
            " [ARG...]\n\nCreate and run a new container from an image\n",
        ),
    ),
)

NETWORKS: tuple[Story, ...] = (
    (
        f"{_EXITS}--network demo --ip 10.9.0.40 --mac-address 02:42:0a:00:00:55 --hostname h --domainname d --dns 9.9.9.9"
        " --dns-search ex.org --dns-option ndots:3 --add-host foo:1.2.3.4 -w /new -e A=b -e C -u 5:6 --entrypoint sh"
        " -p 127.0.0.1:7000-7002:80-82 words -c"
        " 'cat /etc/resolv.conf /etc/hosts /sys/class/net/eth0/address; pwd; hostname; hostname -f; id; echo $A$C'",
    ),
    (f"{_EXITS}--link plain:p --dns 9.9.9.9 -P --expose 81 words sh -c 'cat /etc/resolv.conf /etc/hosts; ping -c 1 -w 5 p >/dev/null'",),
    (f"{_EXITS}--link web:w words true", "ps -aq --filter name=fresh"),
    (
        "run -d --name ranged --expose 80-84 --expose 90-91 --expose 100/udp -e PW=1 words sleep 999",
        "run -d --name linked --link ranged:tt --link plain:p words sleep 999",
        "exec linked sh -c 'env | grep ^TT_ | sort'",
        "inspect --format '{{len .HostConfig.Links}}' linked",
        "rm -f linked",
        "create --name linked --link ranged:tt words true",
        "inspect --format '{{.HostConfig.Links}}' linked",
        "stop -t 0 ranged",
        "start linked",
        "rm -f linked ranged",
    ),
    (f"{_EXITS}--network container:web words sh -c 'hostname; ip -o link | wc -l'",),
    (f"{_EXITS}--network missing words true", "ps -aq --filter name=fresh"),
    (f"{_EXITS}--network '' words true",),
    (f"{_EXITS}--network container:missing words true", f"{_EXITS}--network container: words true"),
    (f"{_EXITS}--network container:web -p 80:80 words true", f"{_EXITS}--network container:web --expose 80 words true"),
    (f"{_EXITS}--network container:web --hostname x words true", f"{_EXITS}--network container:web --dns 1.1.1.1 words true"),
    (f"{_EXITS}--network container:web --add-host a:1.2.3.4 words true",),
    (f"{_EXITS}--network container:web --mac-address 02:42:00:00:00:01 words true",),
    (f"{_EXITS}--network host --mac-address 02:42:00:00:00:01 words true",),
    (f"{_EXITS}--network container:made words true",),
    (f"{_EXITS}--network host -p 80:80 words true",),
    (f"{_EXITS}--network host --ip 10.9.0.77 words true", f"{_EXITS}--network none --ip 10.9.0.77 words true"),
    (f"{_EXITS}--network host --network-alias x words true", f"{_EXITS}--network none --network-alias x words true"),
    (f"{_EXITS}--network bridge --ip 172.17.0.99 words true", f"{_EXITS}--network bridge --network-alias x words true"),
    (
        Different(
            f"{_EXITS}--ip 172.17.0.99 words true",
            _TOO_LATE,
            code=125,
            err=f"{_SIGNED}user specified IP address is supported on user defined networks only.\n",
        ),
    ),
    (
        Different(
            f"{_EXITS}--network demo --ip 10.9.0.10 words true",
            _SAYS_MORE,
            err=f"{_SIGNED}Address already in use: 10.9.0.10 belongs to web.\n",
        ),
        Different(
            f"{_EXITS}--network demo --ip 10.9.0.1 words true",
            _SAYS_MORE,
            err=f"{_SIGNED}Address already in use: 10.9.0.1 belongs to the gateway.\n",
        ),
    ),
    (f"{_EXITS}--network demo --ip 10.77.0.1 words true",),
    (f"{_EXITS}--network demo --ip nowhere words true", f"{_EXITS}--network demo --ip6 nowhere words true"),
    (
        Different(
            f"{_EXITS}--network demo --ip6 fd00::5 words true",
            _SAYS_MORE,
            err=f"{_SIGNED}Invalid address fd00::5: It does not belong to any of this network's subnets.\n",
        ),
    ),
    (f"{_EXITS}--mac-address nonsense words true", f"{_EXITS}--mac-address 02:42 words true"),
    (
        Different(
            f"{_EXITS}--network demo --network other words true",
            "several networks at once, as Docker since 25",
            code=0,
            err="",
        ),
    ),
    (f"{_EXITS}--network demo --network demo words true", f"{_EXITS}--network demo --network bridge words true"),
    (f"{_EXITS}--link missing words true",),
    (f"{_EXITS}--dns foo words true", f"{_EXITS}--dns-search 'foo bar' words true"),
    (f"{_EXITS}--add-host foo words true", f"{_EXITS}--add-host foo:bar words true"),
)

PORTS: tuple[Story, ...] = (
    (f"{_EXITS}-p foo words true", f"{_EXITS}-p 80:foo words true", f"{_EXITS}-p foo:80 words true"),
    (f"{_EXITS}-p 99999:80 words true", f"{_EXITS}-p 80:99999 words true"),
    (f"{_EXITS}-p 8000-8002:80-81 words true", f"{_EXITS}-p 8002-8000:80 words true"),
    (f"{_EXITS}-p 1.2.3:80:80 words true", f"{_EXITS}-p 300.1.1.1:80:80 words true", f"{_EXITS}-p a:b:c:d words true"),
    (f"{_EXITS}-p 80:80/foo words true", f"{_EXITS}-p 80: words true", f"{_EXITS}-p '' words true"),
    (f"{_EXITS}--expose foo words true", f"{_EXITS}--expose 80:80 words true"),
    (
        Different(
            "run -d --name fresh -p 0.0.0.0:8080:80 words true",
            _SAYS_MORE,
            err=f"{_DRIVER}Bind for 0.0.0.0:8080 failed: port is already allocated (by container web).\n",
        ),
        "ps -a --filter name=fresh --format '{{.Names}} {{.Status}}'",
        "rm fresh",
    ),
    (
        Different(
            f"{_EXITS}-p 203.0.113.99:8081:80 words true",
            _SAYS_MORE,
            err=f"{_SIGNED}Bind for 203.0.113.99:8081 failed: Cannot assign requested address (is 203.0.113.99 an address of this host?)."
            "\n",
        ),
    ),
)

STORIES = (*COMMANDS, *NETWORKS, *PORTS)
