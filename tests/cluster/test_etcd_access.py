"""Who may use an etcd: certificates and passwords, right and wrong ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from netplug.errors import Unavailable
from netplug.store import Put
from netplug.store.etcd import EtcdStore, Tls
from tests.cluster.stores import PATIENCE, A, following, in_thread, until_made
from tests.etcd_members import Certificates, Cluster, etcd_cluster


@pytest.fixture(scope="module")
def secured(tmp_path_factory) -> Iterator[Cluster]:
    with etcd_cluster(tls=Certificates.make(tmp_path_factory.mktemp("certificates"))) as cluster:
        yield cluster


class TestTls:
    async def test_with_a_certificate_it_works(self, secured, stores):
        store = await stores(secured, members=[f"https://{secured.addresses[0]}"])
        assert await store.txn([], [Put(A, b"1")])

    async def test_without_one_it_is_refused(self, secured):
        client, stranger = secured.tls.client, secured.tls.stranger
        foreign_ca = stranger.cert
        for tls in (None, Tls(client.ca), stranger, Tls(foreign_ca, client.cert, client.key)):
            with pytest.raises(Unavailable, match=f"does not answer .*{secured.addresses[0]}: "):
                await EtcdStore.open(secured.addresses, tls=tls, timeout=0.5)

    async def test_the_option_that_is_wrong_is_named(self, secured):
        """`--store-cert` where it wants one, where ours is a stranger's; `--store-ca` where its own is one's of whom we do not know."""
        client, stranger = secured.tls.client, secured.tls.stranger
        expected = {
            None: "start it, or give --store-ca FILE if it speaks TLS only",
            Tls(client.ca): "it wants a certificate of this host; give --store-cert and --store-key",
            stranger: "it does not take the certificate of --store-cert; ",
            Tls(stranger.cert, client.cert, client.key): "its certificate is not signed by --store-ca; give there who signed it",
            Tls(client.ca, client.cert, stranger.key): "--store-cert and --store-key do not fit, or --store-ca is no certificate",
        }
        for tls, advice in expected.items():
            with pytest.raises(Unavailable, match=re.escape(f"): {advice}")):
                await EtcdStore.open(secured.addresses, tls=tls, timeout=0.5)

    async def test_tls_to_who_does_not_speak_it(self, etcd, secured):
        with pytest.raises(Unavailable, match=r"leave --store-ca \(and etcds://\) out if it does not speak TLS"):
            await EtcdStore.open(etcd.addresses, tls=secured.tls.client, timeout=0.5)

    async def test_a_certificate_for_another_address(self, tmp_path):
        elsewhere = Certificates.make(tmp_path / "elsewhere", ["192.0.2.77"])
        with etcd_cluster(tls=elsewhere) as etcd, pytest.raises(Unavailable, match="its certificate has not this address"):
            await EtcdStore.open(etcd.addresses, tls=elsewhere.client, timeout=0.5)

    async def test_files_that_are_not_there_or_hold_something_else(self, secured, tmp_path):
        with pytest.raises(Unavailable, match=r"the file .*/none for the etcd cluster cannot be read: No such file"):
            await EtcdStore.open(secured.addresses, tls=Tls(tmp_path / "none"))
        (tmp_path / "garbage").write_bytes(bytes(range(256)))
        with pytest.raises(Unavailable):
            await EtcdStore.open(secured.addresses, tls=Tls(tmp_path / "garbage"), timeout=0.5)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    with etcd_cluster() as cluster:
        cluster.require_passwords("netplug", "secret", "/ours/")
        yield cluster


class TestPasswords:
    async def test_with_the_right_one_it_works_and_goes_on_when_the_member_has_forgotten_it(self, guarded, stores):
        """Tokens live in the member's memory."""
        store = await stores(guarded, prefix="/ours", user="netplug", password="secret")
        revision = await store.txn([], [Put(A, b"1")])
        watching = asyncio.create_task(following(store, A, revision, 2))
        await following(store, A, revision, 1)
        await in_thread(guarded.members[0].restart)
        async with asyncio.timeout(PATIENCE):
            await until_made(store, A)
            assert [events[0].value for events in await watching] == [b"1", b""]
        lease = await store.lease(60)
        await store.keep_alive(lease)

    async def test_with_a_wrong_one_it_is_refused(self, guarded):
        for user, password in (("netplug", "wrong"), ("nobody", "secret")):
            with pytest.raises(Unavailable) as caught:
                await EtcdStore.open(guarded.addresses, user=user, password=password)
            assert str(caught.value) == (
                f"the etcd member {guarded.addresses[0]} refuses user {user}: wrong name or password, correct them"
            )

    async def test_without_one_it_says_what_is_wanted(self, guarded):
        with pytest.raises(Unavailable, match="refuses: user name is empty: give the cluster's user and password, --store-user"):
            await EtcdStore.open(guarded.addresses)

    async def test_what_is_not_the_users_is_refused(self, guarded, stores):
        with pytest.raises(Unavailable) as caught:
            await EtcdStore.open(guarded.addresses, prefix="/lab", user="netplug", password="secret")
        assert str(caught.value) == (
            'the etcd cluster refuses: permission denied (user "netplug", below /lab/netplug/): '
            "etcdctl role grant-permission --prefix ROLE readwrite /lab/netplug/ with a ROLE of that user, or correct --store"
        )
        store = await stores(guarded, prefix="/ours", user="netplug", password="secret")
        theirs = EtcdStore(guarded.addresses, user="netplug", password="secret")
        with pytest.raises(Unavailable, match=r"etcd refuses to watch /: .*permission denied"):
            await following(theirs, "", 1, 1)
        await theirs.close()
        assert await store.get(A + "none") is None

    async def test_a_cluster_that_asks_nobody_takes_everybody(self, etcd, stores):
        store = await stores(etcd, user="netplug", password="secret")
        assert await store.txn([], [Put(A, b"1")])
