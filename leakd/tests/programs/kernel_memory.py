"""Makes the kernel hold memory: says "ready PID", waits for a line, takes and
gives back, says "held", and holds the rest until its stdin ends.

kernel_memory.py KIND MADE KEPT; KIND is what each thing makes the kernel take:
eventfd  one kmalloc and one file
pipe     a page of a pipe that has been written to
percpu   memory of each CPU, for a BPF map
vmalloc  an area of addresses, for a BPF map that can be mapped

kernel_memory.py leak: says "ready PID" and leaks System V semaphores, 200 KiB of
kmalloc a second, in a namespace of its own: they go when it ends.
kernel_memory.py busy: says "ready PID" and opens and closes all the time.
"""

import ctypes
import os
import sys
import time

CLONE_NEWIPC = 0x0800_0000
PER_CPU_ARRAY, ARRAY, MMAPABLE = 6, 2, 1 << 10
BPF, MAP_CREATE = 321, 0


def bpf_map(kind, flags):
    attribute = (ctypes.c_uint32 * 32)(kind, 4, 8, 1, flags)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(BPF, MAP_CREATE, ctypes.byref(attribute), ctypes.sizeof(attribute))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "BPF_MAP_CREATE")
    return [fd]


def pipe():
    reader, writer = os.pipe()
    os.write(writer, b"x")
    return [reader, writer]


MAKE = {
    "eventfd": lambda: [os.eventfd(0)],
    "pipe": pipe,
    "percpu": lambda: bpf_map(PER_CPU_ARRAY, 0),
    "vmalloc": lambda: bpf_map(ARRAY, MMAPABLE),
}


def leak():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWIPC) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    print("ready", os.getpid(), flush=True)
    while True:
        # 50 semaphores take a block of 4 KiB.
        if libc.semget(0, 50, 0o600) < 0:
            raise OSError(ctypes.get_errno(), "semget")
        time.sleep(0.02)


def busy():
    print("ready", os.getpid(), flush=True)
    while True:
        os.close(os.eventfd(0))


def main():
    if sys.argv[1] in ("leak", "busy"):
        return leak() if sys.argv[1] == "leak" else busy()
    kind, made, kept = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print("ready", os.getpid(), flush=True)
    sys.stdin.readline()
    held = []
    for number in range(made):
        # Every third one or so goes again, and not the last ones only.
        fds = MAKE[kind]()
        if number * (made - kept) // made != (number + 1) * (made - kept) // made:
            for fd in fds:
                os.close(fd)
        else:
            held += fds
    # Until 6.12 or so, what is closed goes with the next grace period of RCU.
    time.sleep(1)
    print("held", flush=True)
    sys.stdin.readline()


main()
