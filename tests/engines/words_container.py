"""Containers that are there: what Docker and netplug are to tell of them, and how they end."""

from __future__ import annotations

from tests.engines.words import Different, Story

_RUNC = "OCI runtime exec failed: exec failed: unable to start container process: exec: "
_NEWER = "as later Docker says it"
_NULL = "netplug reads JSON, where an empty list may be null"
_PORTS_OF_IPV6 = "on a network without IPv6, Docker passes IPv6 connections on by its proxy; netplug publishes what the network has"
_EXEC = "as later Docker: 127 where there is no such thing; and an error belongs on stderr"

LISTING: tuple[Story, ...] = (
    ("ps", "ps -a", "ps -a --no-trunc"),
    ("ps -q", "ps -aq --no-trunc"),
    ("ps -a --format '{{.Names}}: {{.Image}} {{.Command}} {{.Ports}} {{.State}} {{.Label \"tier\"}} {{.Mounts}}'",),
    # Of a container on several, Docker's command names them in another order each time.
    ("ps -a --filter name=web --format '{{.Networks}}'", "ps -a --filter name=hosted --format '{{.Networks}}'"),
    ("ps -a --format 'table {{.Names}}\\t{{.Status}}\\t{{.LocalVolumes}}'",),
    ("ps --filter name=we --format {{.Names}}", "ps --filter name=^/web$ --format '{{json .Names}}'"),
    ("ps --filter network=demo --format {{.Names}}",),
    ("ps -a --filter status=exited --format {{.Names}}", "ps --filter status=created --format {{.Names}}"),
    ("ps -a --filter exited=3 --format {{.Names}}",),
    ("ps -a --filter label=tier=front --filter ancestor=words --format {{.Names}}",),
    ("ps --filter publish=8080 --format {{.Names}}", "ps --filter publish=80 --format {{.Names}}"),
    ("ps --filter expose=80 --format {{.Names}}", "ps --filter expose=8080 --format {{.Names}}"),
    ("ps -n 2 --format {{.Names}}", "ps -l --format {{.Names}}"),
    ("ps --filter since=plain --format {{.Names}}", "ps -a --filter since=plain --format {{.Names}}", "ps -a --filter since=nosuch"),
    ("ps --filter before=plain --format {{.Names}}", "ps -a --filter before=plain --format {{.Names}}", "ps -a --filter before=nosuch"),
    (
        "run -d --name bound -v /tmp:/inside words sleep 999",
        "ps --filter volume=/inside --format {{.Names}}",
        "ps --filter volume=/tmp --format {{.Names}}",
        "ps --filter volume=/in --format {{.Names}}",
        "rm -f bound",
    ),
    ("ps --filter health=none --format {{.Names}}", "ps -a --filter health=healthy --format {{.Names}}", "ps --filter health=odd"),
    ("ps -a --filter is-task=false --format {{.Names}}", "ps -a --filter is-task=true --format {{.Names}}", "ps --filter is-task=odd"),
    ("ps --filter status=odd",),
    ("ps --filter foo=bar",),
    ("ps extra",),
    (
        Different(
            "ps --filter name=^/web$ --format {{.Size}}",
            "sizes are not known to netplug",
            code=1,
            out="",
            err='failed to execute template: template: :1:2: executing "" at <.Size>: map has no entry for key "Size"\n',
        ),
    ),
    ("image ls words", "images words --format 'table {{.Repository}}\\t{{.Tag}}\\t{{.Digest}}'"),
    ("image ls -q words", "image ls --no-trunc --filter reference=words --format '{{.ID}} {{.Size}}'", "image ls nosuch"),
    (Different("image ls --format {{.Repository}}", "`host` is always there", out="words\nhost\n"),),
    ("image ls --filter foo=bar",),
    ("image ls two images",),
)

INSPECTING: tuple[Story, ...] = (
    ("inspect web --format '{{.Name}} {{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.Config.Hostname}} {{.Config.Image}}'",),
    ("inspect web --format '{{.Config.Cmd}} {{.Path}} {{.Args}} {{.Config.Env}} {{.Config.Labels}} {{json .Config.Labels}}'",),
    ("inspect ended --format '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.State.Pid}}'",),
    ("inspect made --format '{{.State.Status}} {{.State.StartedAt}} {{.State.FinishedAt}}'",),
    ("inspect web --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}} {{.MacAddress}} {{.IPPrefixLen}}{{end}}'",),
    ("inspect both --format '{{range $name, $one := .NetworkSettings.Networks}}{{$name}}={{$one.IPAddress}} {{end}}'",),
    ("inspect plain --format '{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}} {{.NetworkSettings.MacAddress}}'",),
    ("inspect web --format '{{.NetworkSettings.IPAddress}}'", "inspect ended --format '{{.NetworkSettings.Networks.bridge.IPAddress}}'"),
    ("inspect web --format '{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}}'",),
    ("inspect web --format '{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}'",),
    ("inspect web --format '{{range $port, $to := .NetworkSettings.Ports}}{{$port}} -> {{(index $to 0).HostPort}} {{end}}'",),
    ("inspect web --format '{{json .NetworkSettings.Networks.demo.IPAMConfig}} {{.NetworkSettings.Networks.demo.NetworkID}}'",),
    ("inspect web plain hosted quiet --format '{{.HostConfig.NetworkMode}}'",),
    ('inspect web --format \'{{upper .Name}} {{join .Config.Cmd "+"}} {{slice .Name 1 3}} {{len .Config.Cmd}} {{printf "%q" .Name}}\'',),
    ("inspect web --format '{{if .State.Running}}up{{else}}down{{end}} {{with .State}}{{.Status}}{{end}} {{index .Config.Cmd 0}}'",),
    (Different("inspect web --format {{.Config.Entrypoint}}", _NULL, out="<no value>\n"),),
    (
        Different(
            "inspect both --format '{{json .NetworkSettings.Networks.demo.Aliases}}'",
            "the short id is a name, and no alias; as Docker since 25",
            out='["bee"]\n',
        ),
    ),
    ("inspect demo --format {{.Name}}", "inspect words --format '{{.RepoTags}}'", "inspect --type network demo --format {{.Name}}"),
    ("inspect missing", "inspect web missing --format {{.Name}}", "inspect --type container missing", "inspect --type foo demo"),
    (Different("inspect web --format {{.Foo}}", "Docker begins with an empty line on stdout", out=""),),
    ("inspect web --format {{.Foo",),
    (
        Different(
            "inspect",
            "its objects are not Docker's",
            err="\"netplug inspect\" requires at least 1 argument.\nSee 'netplug inspect --help'.\n\nUsage:  netplug inspect NAME|ID"
            " [NAME|ID...]\n\nReturn low-level information on containers, networks and images\n",
        ),
    ),
)

ASKING: tuple[Story, ...] = (
    ("port web 80", "port web 80/tcp", "port web 53/udp"),
    (
        "run -d --name any --stop-signal KILL -p 8090:80 words sleep 1000000",
        Different("port any", _PORTS_OF_IPV6, out="80/tcp -> 0.0.0.0:8090\n"),
        "rm -f any",
    ),
    (Different("port web 81", _NEWER, err="Error: No public port '81' published for web\n"),),
    (Different("port web foo", _NEWER, err='Error: invalid port (foo): strconv.ParseUint: parsing "foo": invalid syntax\n'),),
    ("port both", "port ended", "port missing", "port"),
    ("logs ended", "logs -t ended"),
    ("logs missing", "logs"),
    (
        "exec web echo hi",
        "exec web sh -c 'exit 7'",
        "exec -d web true",
        "exec -e A=c -e B=d web sh -c 'echo $A $B'",
        "exec -w /bin web pwd",
        "exec web id",
    ),
    (
        Different(
            "exec web nosuchcommand",
            _EXEC,
            code=127,
            out="",
            err=f'{_RUNC}"nosuchcommand": executable file not found in $PATH: unknown\n',
        ),
    ),
    (
        Different(
            "exec web /etc",
            _EXEC,
            out="",
            err=f'{_RUNC}"/etc": permission denied: unknown\n',
        ),
    ),
    (Different("exec -u nosuch web true", _EXEC, out="", err="unable to find user nosuch: no matching entries in passwd file\n"),),
    ("exec missing true", "exec ended true", "exec made true"),
    ("exec -it web true", "exec --foo web true", "exec --env-file /nosuch web true", "exec -d web nosuchcommand"),
    (
        Different(
            "exec web",
            _NEWER,
            err="\"netplug exec\" requires at least 2 arguments.\nSee 'netplug exec --help'.\n\nUsage:  netplug exec CONTAINER COMMAND"
            " [ARG...]\n\nExecute a command in a running container\n",
        ),
    ),
    ("attach ended", "attach missing"),
)

LIVING: tuple[Story, ...] = (
    (
        "create --name short --network demo words sh -c 'echo here; echo there; exit 4'",
        "start -a short",
        "start short",
        "wait short",
        "logs short",
        "logs --tail 1 short",
        "logs --tail foo short",
        "stop short",
        "rm short",
    ),
    ("start missing", "start web", "start web missing", "start"),
    ("stop missing", "stop ended", "stop -t foo web", "stop"),
    ("kill missing", "kill ended", "kill made", "kill -s FOO web", "kill -s CONT web"),
    (Different("kill -s 99 web", "one sentence for what is no signal", err="Error response from daemon: Invalid signal: 99\n"),),
    ("rm missing", "rm web", "rm web missing", "rm -f missing", "rm"),
    ("wait ended", "wait ended ended missing", "wait made", "wait missing", "wait"),
    (
        "run -d --name one words sh -c 'exit 3'",
        "run -d --name two words sh -c 'exit 5'",
        "wait one two",
        "rm one two",
        "rm one",
    ),
    ("run -d --name one --stop-signal KILL words sleep 1000000", "stop one", "inspect one --format {{.State.ExitCode}}", "rm one"),
    ("image rm nosuch", "image rm"),
    ("image rm words",),
    ("image import /nosuch/file x",),
    (
        "image import TARBALL spare:1",
        Different("image rm spare:1", "here the same tarball makes the same image", out="Untagged: spare:1\n"),
        "image rm spare:1",
    ),
    (Different("foo", _NEWER, err="netplug: unknown command: netplug foo\nSee 'netplug --help'.\n"),),
)

STORIES = (*LISTING, *INSPECTING, *ASKING, *LIVING)
