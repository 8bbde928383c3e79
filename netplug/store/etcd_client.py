"""The client library, and the only place that imports it: gRPC, with the messages and services of etcd's API as etcd3aio ships them.

etcd3aio's own client is not used. Its watch goes on behind the revision of the store, not of the event it gave last, so a connection that
breaks while it catches up loses events; it has one stream per watch, and it repeats a transaction that may have been made.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core writes each failed handshake to stderr, beside our log

import grpc
import grpc.aio
from etcd3aio import _protobuf as pb

__all__ = ["grpc", "pb"]
