"""`python -m tests.bench.reach NAME SECONDS`: in a container's namespace, says when NAME can be reached, and when it is gone.

For each line on stdin, `come` or `gone`: says "asking", then the time (seconds of the monotonic clock) at which NAME has an address that
answered a ping, or has none any more. Ends when that takes longer than SECONDS.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

from netplug.cli.demo_ends import question

PAUSE = 0.001


def address_of(name: str, number: int) -> str:
    """What 127.0.0.11 says; `""`: nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        client.settimeout(0.05)
        client.connect(("127.0.0.11", 53))
        client.send(question(name, number & 0xFFFF))
        answer = client.recv(512)
        if answer[3] & 0xF == 0 and answer[6:8] != b"\x00\x00":
            return socket.inet_ntoa(answer[-4:])  # an answer to A ends with the address: nothing follows
    return ""


def answers(address: str, number: int) -> bool:
    """Whether a ping (RFC 792) comes back within 20 ms; it is sent again by whoever asks again."""
    packet = struct.pack("!BBHHH", 8, 0, 0, 4711, number & 0xFFFF)
    total = sum(struct.unpack("!4H", packet))
    packet = packet[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + packet[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as client, contextlib.suppress(OSError):
        client.settimeout(0.02)
        client.connect((address, 0))
        client.send(packet)
        while True:
            answer = client.recv(512)
            if answer[20] == 0 and answer[24:28] == packet[4:8]:
                return True
    return False


def main() -> None:
    name, patience = sys.argv[1], float(sys.argv[2])
    number = 0
    for line in sys.stdin:
        print("asking", flush=True)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            number += 1
            address = address_of(name, number)
            if (bool(address) and answers(address, number)) if line.strip() == "come" else not address:
                print(time.monotonic(), flush=True)
                break
            time.sleep(PAUSE)
        else:
            return


if __name__ == "__main__":
    main()
