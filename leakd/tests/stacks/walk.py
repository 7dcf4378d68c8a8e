"""Run by gdb: writes the stack of every call of an allocating function that a
program makes between begin_work() and end_work(), and where its code is.

    gdb -batch -nx -x walk.py PROGRAM

In the environment: ARGUMENT, what the program is given as its argument (if it
is not empty); INPUT and OUTPUT, files: what the program reads, and what is
written here. A line of OUTPUT is a stack, its return addresses in hex,
innermost first; "map" and a line of /proc/PID/maps; or "end" as the last one.
Frames that gdb makes up, for inlined functions and for tail calls, are left
out.
"""
import os
import shlex

import gdb

FUNCTIONS = (
    "malloc", "calloc", "realloc", "reallocarray", "memalign",
    "aligned_alloc", "posix_memalign", "valloc", "pvalloc",
)
# As many as leakd keeps.
MAX_FRAMES = 128

output = open(os.environ["OUTPUT"], "w")


def stack():
    """The frames around the function that has just been entered."""
    frame = gdb.newest_frame().older()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            yield frame
        frame = frame.older()


class Allocation(gdb.Breakpoint):
    def stop(self):
        addresses = []
        for frame in stack():
            # Called by another one, of which this call is a part.
            if not addresses and frame.name() in FUNCTIONS:
                return False
            addresses.append("%x" % frame.pc())
            if len(addresses) == MAX_FRAMES:
                break
        output.write(" ".join(addresses) + "\n")
        return False


for setting in (
    "pagination off",
    "confirm off",
    "debuginfod enabled off",
    "backtrace past-main on",
    "backtrace limit unlimited",
    "breakpoint pending off",
    "startup-with-shell on",
):
    gdb.execute("set " + setting)
gdb.execute("handle all nostop noprint pass")
gdb.Breakpoint("*begin_work", temporary=True)
arguments = shlex.quote(os.environ["ARGUMENT"]) if os.environ["ARGUMENT"] else ""
gdb.execute("run %s <%s >/dev/null" % (arguments, shlex.quote(os.environ["INPUT"])))

probes = []
for function in FUNCTIONS:
    try:
        address = int(gdb.parse_and_eval("(unsigned long)&" + function))
    except gdb.error:
        continue  # a static program has only what it uses
    probes.append(Allocation("*%#x" % address))
gdb.Breakpoint("*end_work", temporary=True)
gdb.execute("continue")

with open("/proc/%d/maps" % gdb.selected_inferior().pid) as maps:
    for line in maps:
        output.write("map " + line)
output.write("end\n")
output.close()
gdb.execute("kill")
