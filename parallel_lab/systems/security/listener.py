"""The listener on the cable: takes every packet of an interface (AF_PACKET), and looks for a word in it.

It is also the program that listens. It needs root on its host, and nothing of the job. It needs the standard library
alone, so it starts in tens of milliseconds.
"""

import json
import signal
import socket
import struct
import sys

ALL_KINDS = 0x0003  # ETH_P_ALL
SOL_PACKET, PACKET_STATISTICS = 263, 6
KINDS = {6: "tcp", 17: "udp"}  # the protocol's number in the header of IPv4
BUFFER_BYTES = 2**26
ETHERNET_BYTES = 14


def main(cable: str, word: bytes) -> None:
    """Counts what passes the cable until it is told to end, and prints what it has counted."""
    counted = {kind: {"packets": 0, "in_clear": 0, "bytes": 0} for kind in KINDS.values()}
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_KINDS)) as ear:
        ear.setsockopt(socket.SOL_SOCKET, 33, BUFFER_BYTES)  # SO_RCVBUFFORCE: beyond the usual limit
        ear.bind((cable, 0))
        ear.settimeout(0.1)
        print("listening", flush=True)
        while True:
            try:
                packet = ear.recv(2**17)
            except TimeoutError:  # nothing is left of what came before the end
                if over:
                    break
                continue
            kind = KINDS.get(packet[ETHERNET_BYTES + 9]) if packet[12:14] == b"\x08\x00" else None
            if kind:
                counted[kind]["packets"] += 1
                counted[kind]["bytes"] += len(packet)
                counted[kind]["in_clear"] += word in packet
        _, dropped = struct.unpack("II", ear.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps(counted | {"dropped": dropped}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].encode())
