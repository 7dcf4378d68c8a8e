"""Traffic for a Python interpreter, in the manner of common.h: bytes objects
of 7,000 bytes that live for 20 rounds, and all sorts of others."""

import os
import select
import sys

limit = int(os.environ.get("ROUNDS", "0"))
rounds = 0
ring = [None] * 20
names = {}
os.write(1, b"ready %d\n" % os.getpid())
while not limit or rounds < limit:
    rounds += 1
    for turn in range(3):
        ring[(rounds * 3 + turn) % len(ring)] = bytes(bytearray(3000)) + bytes(4000)
    names[rounds % 50] = "a name %d" % rounds * (rounds % 40)
    try:
        names[-1]
    except KeyError:
        pass
    if limit:
        continue
    if select.select([0], [], [], 0.001)[0]:
        lines = os.read(0, 256)
        if not lines:
            break
        for _ in range(lines.count(b"\n")):
            os.write(1, b'{"rounds":%d}\n' % rounds)
ring = names = None
os.write(1, b'{"rounds":%d}\n' % rounds)
