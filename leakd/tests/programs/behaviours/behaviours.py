"""Programs that hold memory after one pattern, named by the argument; see
labels.json. A tick is a fiftieth of a second. Blocks are larger than 512 bytes:
smaller ones come from Python's own arenas."""

import collections
import ctypes
import functools
import gc
import json
import os
import random
import sys
import time
import weakref

TICKS = 50
tick = 0
kept = []
random.seed(1)


def leak_a_global_list():
    if tick % 5 == 0:
        kept.append(bytearray(2000))


class Node:
    def __init__(self):
        self.me = self
        self.payload = bytearray(1500)


def leak_cycles_without_collector():
    gc.disable()
    if tick % 8 == 0:
        Node()


@functools.lru_cache(maxsize=None)
def computed(number):
    return bytearray(1000)


def leak_by_an_unbounded_cache():
    if tick % 4 == 0:
        computed(tick)


def leak_handlers():
    if tick % 10 == 0:
        state = bytearray(3000)
        kept.append(lambda: state)


libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p


def leak_in_c():
    if tick % 5 == 0:
        libc.malloc(900)


def cycles_with_collector():
    Node()
    if tick % (10 * TICKS) == 0:
        gc.collect()


@functools.lru_cache(maxsize=200)
def bounded(number):
    return bytearray(1200)


def lru_cache():
    bounded(int(random.paretovariate(0.5)) % 5000)


last = collections.deque(maxlen=400)


def last_entries():
    last.append(bytearray(1000))


def requests():
    for size in range(10):
        bytearray(600 + 100 * size)


def batch():
    kept.append(bytearray(2000))
    if tick % (10 * TICKS) == 0:
        kept.clear()


# Held out: see labels.json.


def leak_small_objects():
    kept.extend((tick, str(tick), [tick]) for _ in range(20))


def leak_tracebacks():
    if tick % 10:
        return
    try:
        buffer = bytearray(1800)
        raise ValueError(len(buffer))
    except ValueError as error:
        kept.append(error)


# Held out from the second judge.


def leak_classes():
    if tick % 10 == 0:
        kept.append(type(f"Row{tick}", (), {"fields": bytearray(900)}))


class Buffer(bytearray):
    pass


weak = weakref.WeakValueDictionary()


def weak_values():
    kept.append(Buffer(1500))
    weak[tick] = kept[-1]
    if len(kept) > 150:
        del kept[:50]


def documents():
    json.loads(json.dumps([{"name": "x" * 700, "number": number} for number in range(20)]))


step = globals()[sys.argv[1]]
print(f"ready {os.getpid()}", flush=True)
# By the clock: on a busy machine memory is to grow when it should.
start = time.monotonic()
while True:
    while tick <= (time.monotonic() - start) * TICKS:
        step()
        tick += 1
    time.sleep(1 / TICKS)
