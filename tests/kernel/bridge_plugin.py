"""A Docker v1 network plugin of its own, written from the protocol's description and nothing of netplug's: a bridge per network.

    python bridge_plugin.py SOCKET DIRECTORY

What it was told is kept in DIRECTORY/state.json over restarts, what it is told goes to DIRECTORY/calls as a line of JSON each.
DIRECTORY/mood.json, read at each call, says what is to go wrong: by method `hang`, `die`, `half` (die after the work is done), `refuse`,
`late` (answer when it is no use any more), `rubbish`, `huge`, `wrong`, or an object that is the answer.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Request = dict[str, Any]


def ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"ip {' '.join(argv)}: {done.stderr.strip()}")


class State:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        self.networks: dict[str, Any] = {}
        self.endpoints: dict[str, Any] = {}
        if self.path.exists():
            self.networks, self.endpoints = json.loads(self.path.read_text())

    def keep(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps([self.networks, self.endpoints]))
        new.rename(self.path)


class Driver:
    def __init__(self, folder: Path) -> None:
        self.state = State(folder)

    def get_capabilities(self, _: Request) -> Request:
        return {"Scope": "local", "ConnectivityScope": "local"}

    def create_network(self, body: Request) -> Request:
        if body["NetworkID"] in self.state.networks:
            raise ValueError(f"network {body['NetworkID']} exists")
        bridge = f"plug{body['NetworkID'][:7]}"
        ip("link", "add", bridge, "type", "bridge")
        for pool in body["IPv4Data"]:
            if pool.get("Gateway"):
                ip("address", "add", pool["Gateway"], "dev", bridge)
        ip("link", "set", bridge, "up")
        self.state.networks[body["NetworkID"]] = body
        return {}

    def delete_network(self, body: Request) -> Request:
        if body["NetworkID"] not in self.state.networks:
            raise ValueError(f"network {body['NetworkID']} is unknown")
        if any(endpoint["NetworkID"] == body["NetworkID"] for endpoint in self.state.endpoints.values()):
            raise ValueError(f"network {body['NetworkID']} has endpoints")
        ip("link", "del", f"plug{body['NetworkID'][:7]}")
        del self.state.networks[body["NetworkID"]]
        return {}

    def create_endpoint(self, body: Request) -> Request:
        network = self.state.networks[body["NetworkID"]]
        if body["EndpointID"] in self.state.endpoints:
            raise ValueError(f"endpoint {body['EndpointID']} exists")
        answer = {}
        if not body["Interface"]["Address"]:
            number = 2 + len(self.state.endpoints)
            answer["Address"] = f"{ipaddress.ip_network(network['Options']['com.docker.network.generic']['subnet'])[number]}/24"
        if not body["Interface"]["MacAddress"]:
            answer["MacAddress"] = f"02:ee:00:{body['EndpointID'][:2]}:{body['EndpointID'][2:4]}:{body['EndpointID'][4:6]}"
        identity = body["EndpointID"][:7]
        ip("link", "add", f"ph{identity}", "master", f"plug{body['NetworkID'][:7]}", "type", "veth", "peer", "name", f"pc{identity}")
        ip("link", "set", f"ph{identity}", "up")
        self.state.endpoints[body["EndpointID"]] = body
        return {"Interface": answer}

    def join(self, body: Request) -> Request:
        endpoint = self.state.endpoints[body["EndpointID"]]
        endpoint["SandboxKey"] = body["SandboxKey"]
        network = self.state.networks[body["NetworkID"]]
        pools = network["IPv4Data"]
        wish = network["Options"].get("com.docker.network.generic") or {}
        answer: Request = {"InterfaceName": {"SrcName": f"pc{body['EndpointID'][:7]}", "DstPrefix": wish.get("prefix", "eth")}}
        if pools and pools[0].get("Gateway") and wish.get("gateway") != "none":
            answer["Gateway"] = pools[0]["Gateway"].split("/")[0]
            answer["StaticRoutes"] = [
                {"Destination": "10.200.0.0/16", "RouteType": 0, "NextHop": answer["Gateway"]},
                {"Destination": "10.201.0.0/16", "RouteType": 1, "NextHop": ""},
            ]
        return {**answer, "DisableGatewayService": "isolated" in wish}

    def leave(self, body: Request) -> Request:
        self.state.endpoints[body["EndpointID"]].pop("SandboxKey")
        return {}

    def delete_endpoint(self, body: Request) -> Request:
        del self.state.endpoints[body["EndpointID"]]
        with contextlib.suppress(ValueError):  # it went with the sandbox
            ip("link", "del", f"ph{body['EndpointID'][:7]}")
        return {}


METHODS = {
    "GetCapabilities": Driver.get_capabilities,
    "CreateNetwork": Driver.create_network,
    "DeleteNetwork": Driver.delete_network,
    "CreateEndpoint": Driver.create_endpoint,
    "Join": Driver.join,
    "Leave": Driver.leave,
    "DeleteEndpoint": Driver.delete_endpoint,
}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method = self.path.removeprefix("/").rpartition(".")[2]
        body = json.loads(data) if data else {}
        with (self.server.folder / "calls").open("a") as log:
            log.write(json.dumps([method, body]) + "\n")
        mood = self.server.mood(method)
        if mood == "hang":
            threading.Event().wait()
        if mood == "die":
            os._exit(1)
        if isinstance(mood, dict) or mood in ("rubbish", "huge", "wrong", "refuse"):
            self.misbehave(mood)
            return
        status, answer = self.server.answer(method, body)
        if mood == "late":
            threading.Event().wait(3)
        if mood == "half":
            os._exit(1)
        self.reply(status, json.dumps(answer).encode())

    def misbehave(self, mood: Any) -> None:
        if mood == "refuse":
            self.reply(200, json.dumps({"Err": "not\ntoday"}).encode())
        elif mood == "wrong":
            self.reply(200, json.dumps({"InterfaceName": 7, "Interface": "eth", "Scope": [], "Implements": 1}).encode())
        elif mood == "huge":
            self.reply(200, b" " * (1 << 22))
        elif mood == "rubbish":
            self.wfile.write(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
        else:
            self.reply(200, json.dumps(mood).encode())

    def reply(self, status: int, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def address_string(self) -> str:
        return "peer"

    def log_message(self, format: str, *arguments: Any) -> None:
        """The calls are written down already."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    role, methods, kind = "NetworkDriver", METHODS, Driver

    def __init__(self, path: str, folder: Path) -> None:
        self.folder, self.driver, self.lock = folder, self.kind(folder), threading.Lock()
        super().__init__(path, Handler)

    def mood(self, method: str) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / "mood.json").read_text()).get(method)
        return None

    def answer(self, method: str, body: Request) -> tuple[int, Request]:
        if method == "Activate":
            return 200, {"Implements": [self.role]}
        if method not in self.methods:
            return 404, {}
        with self.lock:
            try:
                return 200, self.methods[method](self.driver, body)
            except (KeyError, ValueError) as error:
                return 200, {"Err": f"{method}: {error}"}
            finally:
                self.driver.state.keep()


def serve(kind: type[Server]) -> None:
    path, folder = sys.argv[1], Path(sys.argv[2])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = kind(path, folder)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Server)
