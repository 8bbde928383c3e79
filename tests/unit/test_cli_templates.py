"""Go templates: what `--format` can say. Expected texts and errors are those of Docker's own command."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.cli.templates import Template, TemplateError

WEB: dict[str, Any] = {
    "Name": "/web",
    "Config": {"Cmd": ["sh", "-c", "exit 3"], "Labels": {"stage": "test"}, "Env": None, "Image": "bb"},
    "State": {"ExitCode": 3, "Running": False, "Pid": 0, "Error": ""},
    "NetworkSettings": {
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None},
        "Networks": {"demo": {"IPAddress": "172.18.0.2", "IPPrefixLen": 16}, "back": {"IPAddress": "172.19.0.2", "IPPrefixLen": 16}},
    },
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Name}}", "/web"),
        ("{{ .Name }}", "/web"),
        ("plain", "plain"),
        ("{{.NetworkSettings.Networks.demo.IPAddress}}", "172.18.0.2"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "172.19.0.2 172.18.0.2 "),
        ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}};{{end}}", "back=172.19.0.2;demo=172.18.0.2;"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}:{{if $c}}{{(index $c 0).HostPort}}{{else}}-{{end}} {{end}}",
            "80/tcp:8080 81/tcp:- ",
        ),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .NetworkSettings.Networks "demo" "IPAddress"}}', "172.18.0.2"),
        ("{{json .Config.Cmd}} {{.State.Running | json}}", '["sh","-c","exit 3"] false'),
        ("{{.Config.Cmd}} {{.Config.Labels}} {{.State.Running}} {{.State.Pid}}", "[sh -c exit 3] map[stage:test] false 0"),
        ("{{.Config.Env}}", "<no value>"),
        ("{{.NetworkSettings.Ports}}", "map[80/tcp:[map[HostIp:0.0.0.0 HostPort:8080]] 81/tcp:<nil>]"),
        ("{{.Config.Labels.nope}}|{{.NetworkSettings.Networks.nope.IPAddress}}", "<no value>|<no value>"),
        ('{{index .Config.Labels "nope"}}|{{index .Config.Labels "stage"}}', "|test"),
        ("{{len .Config.Cmd}} {{len .Name}}", "3 4"),
        ('{{join .Config.Cmd ","}} {{split "a,b" ","}} {{upper "x"}} {{lower "X"}} {{title "a b"}}', "sh,-c,exit 3 [a b] X x A B"),
        ('{{truncate "hello" 3}}|{{pad "x" 2 3}}|{{slice "abcdef" 1 3}}', "hel|  x   |bc"),
        ('{{printf "%s-%d %v %q %5d|%-4s|" .Name 7 .Config.Cmd "q" 1 "a"}}', '/web-7 [sh -c exit 3] "q"     1|a   |'),
        ('{{printf "%05d %x %t %% %.1f %c %T" 42 255 true 1.25 65 "s"}}', "00042 ff true % 1.2 A string"),
        ('{{printf "%d %s" 1}} {{printf "%d" 1 2}} {{printf "%d" "a"}}', "1 %!s(MISSING) 1%!(EXTRA int=2) %!d(string=a)"),
        ('{{print 1 2 "a" 3}}|{{println "a" 1}}', "1 2a3|a 1\n"),
        ("{{if .State.Running}}up{{else if eq .State.ExitCode 3}}three{{else}}down{{end}}", "three"),
        ('{{if and .State.Running (eq .Name "x")}}y{{else}}n{{end}} {{or .State.Error "none"}}', "n none"),
        (
            '{{eq 1 2 1}} {{ne "a" "b"}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1 2}} {{not true}}',
            "true true true true true false false",
        ),
        ("{{with .State}}{{.ExitCode}} {{$.Name}}{{end}}{{with .Config.Env}}x{{else}}none{{end}}", "3 /webnone"),
        ("{{with $n := .Name}}{{$n}}{{end}}", "/web"),
        ("{{$x := 1}}{{range .Config.Cmd}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{range .Config.Env}}x{{else}}empty{{end}}", "empty"),
        ("{{range $i, $e := .Config.Cmd}}{{if eq $i 1}}{{continue}}{{end}}{{$e}}{{if eq $i 2}}{{break}}{{end}},{{end}}", "sh,exit 3"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("a {{- .Name -}} \n b {{- /* gone */ -}} c", "a/webbc"),
        ("{{/* only this */}}", ""),
        ('{{"a\\tb\\x41"}}{{`raw\\t`}}', "a\tbAraw\\t"),
        ("{{1.5}} {{1e3}} {{0x10}} {{-3}} {{true}}", "1.5 1000 16 -3 true"),
        ('{{.Name | printf "%s!" | upper}}', "/WEB!"),
        ("{{(.State).ExitCode}}", "3"),
        ('{{"}}"}}', "}}"),
        ('{{html "<a>"}} {{urlquery "a b"}}', "&lt;a&gt; a+b"),
    ],
)
def test_renders_as_go_does(template: str, expected: str) -> None:
    assert Template(template).render(WEB) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{", "unclosed action"),
        ("{{.Name", "unclosed action"),
        ("{{.Name}", "unclosed action"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{if .Name}}a{{else}}b{{else}}c{{end}}", "expected end; found {{else}}"),
        ("{{foo .Name}}", 'function "foo" not defined'),
        ("{{$y}}", 'undefined variable "$y"'),
        ("{{$y = 1}}", 'undefined variable "$y"'),
        ("{{range $i := .Config.Cmd}}{{end}}{{$i}}", 'undefined variable "$i"'),
        ("{{}}", "missing value for command"),
        ("{{(.Name}}", "unclosed left paren"),
        ('{{"open}}', "unterminated quoted string"),
        ("{{!}}", 'unexpected "!" in command'),
        ("{{nil}}", "nil is not a command"),
    ],
)
def test_what_cannot_be_read(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template)

    assert (str(caught.value), caught.value.parsing) == (f"template: :1: {message}", True)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Foo}}", '1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.State.Foo}}", '1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"'),
        ("\n {{.Foo}}", '2:3: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Name.Foo}}", '1:7: executing "" at <.Name.Foo>: can\'t evaluate field Foo in type interface {}'),
        ("{{.Config.Env.Foo}}", '1:13: executing "" at <.Config.Env.Foo>: nil pointer evaluating interface {}.Foo'),
        ("{{index .Config.Cmd 9}}", '1:2: executing "" at <index .Config.Cmd 9>: error calling index: index out of range: 9'),
        ("{{index .Config.Env 0}}", '1:2: executing "" at <index .Config.Env 0>: error calling index: index of untyped nil'),
        ('{{eq 1 "a"}}', '1:2: executing "" at <eq 1 "a">: error calling eq: incompatible types for comparison'),
        ("{{lt true false}}", '1:2: executing "" at <lt true false>: error calling lt: invalid type for comparison'),
        ("{{len 3}}", '1:2: executing "" at <len 3>: error calling len: len of type int'),
        ("{{upper}}", '1:2: executing "" at <upper>: error calling upper: wrong number or type of arguments'),
        ("{{.Name .Name}}", '1:2: executing "" at <.Name .Name>: can\'t give argument to non-function .Name'),
    ],
)
def test_what_does_not_fit_the_value(template: str, message: str) -> None:
    parsed = Template(template)

    with pytest.raises(TemplateError) as caught:
        parsed.render(WEB)

    assert (str(caught.value), caught.value.parsing) == (f"template: :{message}", False)


def test_a_function_in_a_row_is_a_method() -> None:
    assert Template('{{.Label "a"}}{{range .L}}{{$.Label .}}{{end}}').render({"Label": {"a": "1", "b": "2"}.get, "L": ["b"]}) == "12"


_PIECES = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    ".Name",
    ".",
    "$",
    "$x",
    ":=",
    "=",
    "|",
    "(",
    ")",
    '"',
    "`",
    "if",
    "range",
    "end",
    "else",
    "with",
    "json",
    "index",
    "printf",
    "eq",
    "and",
    "1",
    "-2.5",
    "nil",
    "/*",
    "*/",
    "\\",
    "%d",
    "break",
    "é",
    ",",
    "len",
    "slice",
    "truncate",
]


@given(st.lists(st.sampled_from([*_PIECES, " ", "\n"]), max_size=14).map("".join) | st.text(max_size=20))
def test_whatever_is_typed_renders_or_is_a_template_error(text: str) -> None:
    for source in (text, "{{" + text + "}}"):
        with contextlib.suppress(TemplateError):
            assert isinstance(Template(source).render(WEB), str)


@given(st.text(alphabet=st.characters(blacklist_characters="{"), max_size=30))
def test_text_without_actions_stays_as_it_is(text: str) -> None:
    assert Template(text).render({}) == text
