"""Servers that the benchmarks in Python start, and that end with them."""

import ctypes
import os
import shutil
import signal
import socket
import sys
import time


def require(*programs):
    """Ends with one line where something is missing."""
    if os.geteuid() != 0:
        sys.exit("error: tracing needs root: run it by sudo")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"error: not there: {', '.join(map(str, missing))}")


def end_with_us():
    """Called in a child: it is not to go on where this program is killed."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until_it_answers(process, port, patience=10):
    """Waits for a server of ours; where it ends instead, so do we."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"error: {process.args[0]} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"error: {process.args[0]} does not answer at port {port}")
