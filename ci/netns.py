#!/usr/bin/env python3
"""A link between two network namespaces, for a kernel without `tc netem`: it delays each packet and limits the rate.

    ci/netns.py NAMESPACE DEVICE NAMESPACE DEVICE DELAY_SECONDS BITS_PER_SECOND

makes a device in each namespace, writes a line, and passes packets between them until it is ended. As with netem, a packet leaves when
those before it have left at this rate, and arrives one delay later.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# The largest packet of any device, with its Ethernet header.
LARGEST = 65550


def device(namespace, name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    # A device that has moved is still this one's.
    subprocess.run(["ip", "link", "set", name, "netns", namespace], check=True)
    return tap


def main():
    one, own, two, other = sys.argv[1:5]
    delay, rate = float(sys.argv[5]), float(sys.argv[6])
    taps = [device(one, own), device(two, other)]
    print("up", flush=True)
    free = [0.0, 0.0]
    on_the_way = [collections.deque(), collections.deque()]
    while True:
        dues = [way[0][0] for way in on_the_way if way]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select(taps, [], [], wait)
        for tap in ready:
            way = taps.index(tap)
            try:
                while True:
                    packet = os.read(tap, LARGEST)
                    free[way] = max(free[way], time.monotonic()) + 8 * len(packet) / rate
                    on_the_way[way].append((free[way] + delay, packet))
            except BlockingIOError:
                pass
            except OSError:
                # The device is down, and drops what it is given.
                time.sleep(0.001)
        now = time.monotonic()
        for way, packets in enumerate(on_the_way):
            while packets and packets[0][0] <= now:
                try:
                    os.write(taps[1 - way], packets.popleft()[1])
                except OSError:
                    # Lost, as on a link that is down or full.
                    pass


if __name__ == "__main__":
    main()
