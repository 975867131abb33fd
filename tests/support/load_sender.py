"""The owner of a sampler in a network namespace, that sends counted packets; run by the end-to-end tests.

``python -m tests.support.load_sender NAME ADDRESS INTERFACE``: start a sampler, say ready, then for each number read
from standard input send that many packets and say sent. Its end ends the sampler.
"""

from __future__ import annotations

import socket
import sys

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager

PAYLOAD_BYTES = 1400
PACKET_BYTES = PAYLOAD_BYTES + 8 + 20 + 14  # UDP, IPv4 and Ethernet headers
PORT = 9999


def main() -> None:
    name, address, interface = sys.argv[1:]
    config = ResourceConfig(name=name, check_interval=0.2, observation_period=2.0, interfaces=(interface,))
    payload = bytes(PAYLOAD_BYTES)
    with ResourceManager(config), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        print("ready", flush=True)
        for line in sys.stdin:
            for _ in range(int(line)):
                sender.sendto(payload, (address, PORT))
            print("sent", flush=True)


if __name__ == "__main__":
    main()
