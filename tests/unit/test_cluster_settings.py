"""How a node is told of its cluster: what is understood, and what is refused before anything is made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from netplug.cluster import location, settings
from netplug.errors import InvalidArgument
from netplug.settings import Settings


@pytest.mark.parametrize(
    ("text", "members", "prefix"),
    [
        ("etcd://10.0.0.1:2379", ["10.0.0.1:2379"], ""),
        ("etcd://a, b:1/lab/", ["a", "b:1"], "/lab"),
        ("etcd://a:1,etcd://b:1,etcd://c:1/lab/x", ["a:1", "b:1", "c:1"], "/lab/x"),
        ("etcds://a:1,etcds://b_c.example.org:65535/", ["a:1", "b_c.example.org:65535"], ""),
        ("etcd://[fd00::1]:2379,[fd00::2]", ["[fd00::1]:2379", "[fd00::2]"], ""),
        ("etcd://a:1,a:1", ["a:1"], ""),
    ],
)
def test_a_store_is_members_and_a_prefix(text: str, members: list[str], prefix: str):
    assert location.parse(text) == (members, prefix)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"),
        ("10.0.0.1:2379", "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"),
        ("http://a:1", "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"),
        ("etcd://", "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"),
        ("etcd:///lab", "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"),
        ("etcd://a,,b", "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"),
        ("etcd://a:1/lab?x=1", "it has no options, so ? has no meaning in it; leave it out"),
        ("etcd://a:1#x", "it has no options, so # has no meaning in it; leave it out"),
        ("etcd://a:1//lab", 'the prefix "//lab" has an empty part; write one slash at a time'),
        ("etcd://a:1/lab//", 'the prefix "/lab//" has an empty part; write one slash at a time'),
        ("etcd://a:1/lab,b:1", "there is one prefix for all members; write it once, after the last one"),
        ("etcd://http://h:1", "http:// is not needed before a member; write etcd://h:1"),
        ("etcd://a:1,https://b:1", "https:// is not needed before a member; write etcd://b:1"),
        ("etcd://a:1,etcds://b:1", "etcds:// and etcd:// do not go together; write one of them before all members"),
        ("etcd://a:http", 'the port "http" is no number from 1 to 65535; write HOST:PORT'),
        ("etcd://a:0", 'the port "0" is no number from 1 to 65535; write HOST:PORT'),
        ("etcd://a:65536", 'the port "65536" is no number from 1 to 65535; write HOST:PORT'),
        ("etcd://a:", 'the port "" is no number from 1 to 65535; write HOST:PORT'),
        ("etcd://[fd00::1]:x", 'the port "x" is no number from 1 to 65535; write HOST:PORT'),
        ("etcd://[fd00::1]x", '"[fd00::1]x" is no member; write [ADDRESS]:PORT'),
        ("etcd://a;b", '"a;b" is no name or address of a host; write HOST:PORT'),
        ("etcd://fd00::1:2379", 'the IPv6 address in "fd00::1:2379" needs brackets; write [ADDRESS]:PORT'),
        ("etcd://10.0.0.256:2379", '"10.0.0.256" is no address; write HOST:PORT'),
        ("etcd://[fd00::x]:2379", '"fd00::x" is no IPv6 address; write [ADDRESS]:PORT'),
    ],
)
def test_a_store_that_can_be_misread_is_refused(text: str, reason: str):
    with pytest.raises(InvalidArgument) as caught:
        location.parse(text)
    assert str(caught.value) == f"invalid --store {text}: {reason}"


@pytest.mark.parametrize("text", ["etcd://u:secret@h:1", "etcd://u:sec/ret@h", "u:secret@h"])
def test_a_password_in_the_store_is_refused_and_not_said(text: str):
    with pytest.raises(InvalidArgument) as caught:
        location.parse(text)
    assert str(caught.value) == "invalid --store: no user and no @ belong into it; give --store-user NAME[:PASSWORD]"


def chosen(**changes: str) -> Settings:
    """What a node needs, and that."""
    return msgspec.convert({"store": "etcd://192.0.2.9:2379", "advertise": "192.0.2.1", "node": "n1", **changes}, Settings)


def test_etcds_is_never_spoken_in_plain_text():
    with pytest.raises(InvalidArgument, match="--store etcds://… needs --store-ca FILE"):
        settings.check(chosen(store="etcds://192.0.2.9:2379"))


@pytest.mark.parametrize(
    ("advertise", "kind"),
    [
        ("127.0.0.1", "a loopback"),
        ("127.3.4.5:2376", "a loopback"),
        ("[::1]:2376", "a loopback"),
        ("fe80::14", "a link-local"),
        ("fe80::14%eth0", "a link-local"),
        ("169.254.7.7", "a link-local"),
    ],
)
def test_an_address_that_no_other_node_reaches_is_refused(tmp_path: Path, advertise: str, kind: str):
    with pytest.raises(InvalidArgument) as caught:
        settings.underlay(chosen(advertise=advertise), tmp_path)
    assert str(caught.value) == (
        f"invalid --advertise {advertise}: no other node reaches {kind} address; give one of this host that they reach"
    )


UNREADABLE = "--store-cert {cert} or --store-key {key} cannot be read: give a certificate and its key in PEM, the key without a password"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By name: two certificates with keys, and what is none of them."""
    folder = tmp_path_factory.mktemp("certificates")
    made = {name: str(folder / name) for name in ("cert", "key", "other", "other-key", "locked", "garbage", "none")}
    for cert, key in (("cert", "key"), ("other", "other-key")):
        new = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={cert}")
        _openssl("req", *new, "-keyout", made[key], "-out", made[cert])
    _openssl("ec", "-aes256", "-passout", "pass:secret", "-in", made["key"], "-out", made["locked"])
    Path(made["garbage"]).write_bytes(bytes(range(256)))
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("ca", "cert", "key", "reason"),
    [
        ("garbage", "", "", "--store-ca {ca} is no certificate in PEM: give the one that signed the members'"),
        ("key", "", "", "--store-ca {ca} is no certificate in PEM: give the one that signed the members'"),
        ("none", "", "", "--store-ca {ca} cannot be read: No such file or directory"),
        ("cert", "cert", "none", "--store-key {key} cannot be read: No such file or directory"),
        ("cert", "cert", "other-key", "--store-key {key} does not belong to --store-cert {cert}: give the key that it was made with"),
        (
            "cert",
            "garbage",
            "key",
            UNREADABLE,
        ),
        (
            "cert",
            "cert",
            "locked",
            UNREADABLE,
        ),
    ],
)
def test_files_that_cannot_be_for_tls_end_the_start(files: dict[str, str], ca: str, cert: str, key: str, reason: str):
    given = {"ca": files[ca], "cert": files.get(cert, ""), "key": files.get(key, "")}
    with pytest.raises(InvalidArgument) as caught:
        settings.check(chosen(**{f"store_{name}": path for name, path in given.items() if path}))
    assert str(caught.value) == reason.format(**given)


def test_files_that_fit_are_taken(files: dict[str, str]):
    settings.check(chosen(store="etcds://192.0.2.9:2379", store_ca=files["other"]))
    settings.check(chosen(store_ca=files["other"], store_cert=files["cert"], store_key=files["key"]))
