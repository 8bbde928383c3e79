"""The members of an etcd cluster: channels, who we are, and going on to the next member within one deadline.

Every member has a channel of its own, so that a name in its certificate is checked against its own address and an error can say which
member said what. The first of `Members` is the one asked; whoever fails goes to the end.

What a failed call may have done decides what may be done next. A call that etcd refused, or that never left, did nothing. One that was
sent and not answered may have been done, or may yet be: `Unsure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netplug.errors import InvalidArgument, Unavailable

from . import etcd_advice
from .etcd_client import grpc, pb

PORT = 2379
PAUSE = 0.05
"""Seconds before all members are asked once more."""
LEAST = 0.2
"""Seconds that a member gets at least, as long as there are any left."""

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # stores do not share connections: one may have other certificates
    ("grpc.enable_http_proxy", 0),  # the environment's proxy is not for the cluster's own network
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 6000),  # etcd hangs up on who asks more often than every 5 s, or when no call is open
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
]

Metadata = tuple[tuple[str, str], ...]


class Refused(Exception):
    """etcd answered, with an error, and did nothing. `details` is its sentence."""

    def __init__(self, details: str) -> None:
        self.details = details
        super().__init__(details)


class Unsure(Exception):
    """It was sent to a member that did not answer: it may have been done, or may yet be. `details`: which member, and what it said."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: who signs the members' certificates, and our own certificate and key if the members want one."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))


class Member:
    """One address, its channel and the services behind it. The connection is made by the first call."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(address, credentials, options=OPTIONS)
        self.kv, self.leases = pb.KVStub(self.channel), pb.LeaseStub(self.channel)
        self.watches, self.auth = pb.WatchStub(self.channel), pb.AuthStub(self.channel)
        # Takes requests that are encoded already.
        self.txn = self.channel.unary_unary("/etcdserverpb.KV/Txn", response_deserializer=pb.TxnResponse.FromString)
        self._maintenance = pb.MaintenanceStub(self.channel)

    async def meet(self, metadata: Metadata, timeout: float) -> None:
        """Connects, by a question that changes nothing. (Of the first call on a broken connection nobody can say whether it was sent.)"""
        if self.channel.get_state() is not grpc.ChannelConnectivity.READY:
            await self._maintenance.Status(pb.StatusRequest(), metadata=metadata, timeout=timeout)

    async def keep_alive(self, request: Any, *, metadata: Metadata, timeout: float) -> Any:
        """etcd has this as a stream only; one question and one answer of it."""
        call = self.leases.LeaseKeepAlive(metadata=metadata, timeout=timeout)
        try:
            await call.write(request)
            answer = await call.read()
        finally:
            call.cancel()
        if answer is grpc.aio.EOF:
            raise Unavailable(f"the etcd member {self.address} hung up instead of answering: try again")
        return answer


Method = Callable[[Member], Callable[..., Any]]


class Members:
    """`on_state` hears when the cluster stops and starts answering; `healthy` says which it is."""

    def __init__(self, addresses: Sequence[str], tls: Tls | None, user: str, password: str, timeout: float) -> None:
        credentials = tls.credentials() if tls else None
        self.healthy = True
        self.on_state: Callable[[bool], None] = lambda healthy: None
        self.timeout = timeout
        self.named = bool(user)
        self.user, self._password, self._tls = user, password, tls
        self._members = [Member(_target(address, tls is not None), credentials) for address in addresses]
        if not self._members:
            raise InvalidArgument("no member of the etcd cluster is given")
        self._order = [member.address for member in self._members]
        """As they were given: `_members` turns."""
        self._token: str | None = None if user else ""
        self._authenticating = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def first(self) -> Member:
        return self._members[0]

    async def close(self) -> None:
        await asyncio.gather(*(member.channel.close() for member in self._members))

    async def ask(self, method: Method, request: Any, *, until: float | None = None, repeatable: bool = True) -> Any:
        """The first member's answer that comes before `until` (the loop's time; `timeout` from now if it is not given).

        Unavailable if there is none, Refused if etcd says no. Unsure if it may have been done and is not `repeatable`.
        """
        until = until or self.until()
        troubles: dict[str, str] = {}
        while (left := until - _now()) > 0:
            member = self.first
            share = left if len(self) == 1 else max(left / 2, min(left, LEAST))
            try:
                answer = await self._ask_one(member, method, request, _now() + share, repeatable)
            except grpc.aio.AioRpcError as error:
                troubles[member.address] = reason(error)
                self.pass_over(member)
                if len(troubles) == len(self):
                    await asyncio.sleep(min(PAUSE, max(until - _now(), 0)))
            except Unsure:
                self.pass_over(member)
                raise
            else:
                self.tell(True)
                return answer
        self.tell(False)
        raise self.unavailable(troubles)

    def until(self) -> float:
        return _now() + self.timeout

    def pass_over(self, member: Member) -> None:
        """It failed: others first. (Many calls may fail on one member at once.)"""
        if self.first is member:
            self._members.append(self._members.pop(0))

    def tell(self, healthy: bool) -> None:
        if healthy != self.healthy:
            self.healthy = healthy
            self.on_state(healthy)

    def unavailable(self, troubles: dict[str, str]) -> Unavailable:
        """In the order in which they were given, so that the same trouble gives the same sentence, and a log has it once."""
        said = "; ".join(f"{address}: {troubles[address]}" for address in self._order if address in troubles)
        shown = self._tls is not None and self._tls.cert is not None
        advice = etcd_advice.absent(troubles.values(), tls=self._tls is not None, certificate=shown)
        return Unavailable(f"the etcd cluster does not answer ({said}): {advice}")

    async def metadata(self, member: Member, until: float, *, renew: bool = False) -> Metadata:
        """What goes with every call. `hasleader`: a member that was cut off from the others says so at once."""
        if self.named and (renew or self._token is None):
            await self._authenticate(member, self._token, until)
        return (("hasleader", "true"), ("token", self._token)) if self._token else (("hasleader", "true"),)

    async def _ask_one(self, member: Member, method: Method, request: Any, until: float, repeatable: bool) -> Any:
        """AioRpcError if it was not done, or may be done again."""
        for last in (False, True):
            metadata = await self.metadata(member, until)
            token, sent = self._token, False
            try:
                if not repeatable:
                    await member.meet(metadata, _left(until))
                sent = True
                return await method(member)(request, metadata=metadata, timeout=_left(until))
            except grpc.aio.AioRpcError as error:
                if self._renewable(error, token, last):
                    continue
                if sent and not (repeatable or _not_done(error)):
                    raise Unsure(f"{member.address}: {reason(error)}") from error
                raise
        raise AssertionError("the last turn returns or raises")

    def _renewable(self, error: grpc.aio.AioRpcError, token: str | None, last: bool) -> bool:
        """True if a new token may help. Refused if nothing does."""
        details = error.details() or ""
        if not last and self.named and ("invalid auth token" in details or "revision of auth store is old" in details):
            if self._token == token:
                self._token = None
            return True
        if error.code() in _ANSWERS and details.startswith("etcdserver: ") and "too many requests" not in details:
            raise Refused(details.removeprefix("etcdserver: ")) from error
        return False

    async def _authenticate(self, member: Member, known: str | None, until: float) -> None:
        async with self._authenticating:
            if self._token is not None and self._token != known:
                return  # another call has just got it
            request = pb.AuthenticateRequest(name=self.user, password=self._password)
            try:
                self._token = (await member.auth.Authenticate(request, timeout=_left(until))).token
            except grpc.aio.AioRpcError as error:
                details = error.details() or ""
                if "authentication failed" in details:
                    raise Unavailable(
                        f"the etcd member {member.address} refuses user {self.user}: wrong name or password, correct them"
                    ) from error
                if "authentication is not enabled" not in details:
                    raise
                self._token = ""  # a cluster that asks nobody


_ANSWERS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAUTHENTICATED,
}
"""etcd's own, as long as the sentence is etcd's: a stranger on the port may answer with any code."""


def _not_done(error: grpc.aio.AioRpcError) -> bool:
    """Said before anything was proposed to the cluster; or there was no connection to say it on."""
    details = error.details() or ""
    return any(part in details for part in ("etcdserver: no leader", "too many requests", "failed to connect to all addresses"))


def reason(error: Exception) -> str:
    """A few words of what may be gRPC's long ones."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if not isinstance(error, grpc.aio.AioRpcError):
        return str(error)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    details = " ".join((error.details() or error.code().name).split())
    return details.rpartition("last error: ")[2].rpartition("Failed to connect to remote host: ")[2]


def _target(address: str, secure: bool) -> str:
    """`host:port` of an address or URL as etcdctl takes them."""
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "http", "https") or not rest.strip("/"):
        raise InvalidArgument(f"{address!r} is no address of an etcd member: write host:port")
    if scheme and (scheme == "https") != secure:
        raise InvalidArgument(f"{address} {'needs a CA file' if scheme == 'https' else 'is not for TLS: write https://'}")
    host = rest.strip("/")
    has_port = ":" in host.rpartition("]")[2]
    return host if has_port else f"{host}:{PORT}"


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"the file {path} for the etcd cluster cannot be read: {error.strerror}") from error


def _now() -> float:
    return asyncio.get_running_loop().time()


def _left(until: float) -> float:
    return max(until - _now(), 0.001)
