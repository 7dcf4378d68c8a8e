#!/usr/bin/env python3
"""What tracing the kernel's memory costs nginx, as a share of its throughput.

    cargo build --release -p leakd --bins
    sudo leakd/examples/bench/kernel.py --rounds 4 --seconds 3

Needs root, nginx and wrk. Rounds without a trace and with each kind of trace
take turns, so that what else the machine does meets all of them.
"""

import argparse
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # `servers` is in the source tree

from servers import end_with_us, free_port, require, until_it_answers

ROOT = pathlib.Path(__file__).resolve().parents[3]

TRACES = {
    "kmalloc": ["--only", "kmalloc"],
    "slab": ["--only", "slab"],
    "everything": [],
    "quiet cache": ["--cache", "pid_namespace"],
}


class Server:
    """nginx with one worker that answers at once."""

    def __init__(self, directory):
        self.port = free_port()
        config = directory / "nginx.conf"
        config.write_text(f"""
            daemon off; user root; worker_processes 1; pid {directory}/nginx.pid;
            error_log {directory}/nginx.log;
            events {{ worker_connections 64; }}
            http {{ access_log off; keepalive_requests 1000000;
                    server {{ listen 127.0.0.1:{self.port}; return 200 'hello'; }} }}""")
        self.process = subprocess.Popen(["nginx", "-c", str(config)], preexec_fn=end_with_us)
        until_it_answers(self.process, self.port)

    def requests(self, seconds):
        """Requests a second, under load for so long."""
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{self.port}/"]
        text = subprocess.check_output(command, text=True)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def traced(server, leakctl, options, seconds, output):
    """Requests a second while the kernel is traced, and what leakctl says."""
    command = [leakctl, "kernel", "--no-daemon", "--for", "1h", "--min-age", "1s", *options]
    trace = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True,
                             preexec_fn=end_with_us)
    line = trace.stderr.readline()
    if not line.startswith("attached"):
        raise SystemExit(line + trace.stderr.read())
    requests = server.requests(seconds)
    trace.send_signal(signal.SIGINT)
    trace.communicate()
    return requests


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--leakctl", default=str(ROOT / "target/release/leakctl"))
    parser.add_argument("traces", nargs="*", help=f"of: {', '.join(TRACES)}")
    arguments = parser.parse_args()
    require("nginx", "wrk", arguments.leakctl)
    names = arguments.traces or list(TRACES)
    with tempfile.TemporaryDirectory(prefix="leakd-bench-") as directory:
        server = Server(pathlib.Path(directory))
        lost = {name: [] for name in names}
        bare = []
        report = pathlib.Path(directory) / "report"
        try:
            server.requests(1)
            for _ in range(arguments.rounds):
                for name in names:
                    before = server.requests(arguments.seconds)
                    with report.open("w") as output:
                        during = traced(server, arguments.leakctl, TRACES[name],
                                        arguments.seconds, output)
                    bare.append(before)
                    lost[name].append(1 - during / before)
                    seen = re.search(r"Seen: ([^;]*;[^;]*)", report.read_text())
                    print(f"  {name}: {before:.0f} -> {during:.0f} requests/s; "
                          f"{seen[1] if seen else 'no report'}", flush=True)
        finally:
            server.end()
    print(f"nginx without a trace: {statistics.median(bare):.0f} requests/s")
    for name, shares in lost.items():
        print(f"{name}: {statistics.median(shares):.1%} of the throughput lost "
              f"({min(shares):.1%} to {max(shares):.1%})")


if __name__ == "__main__":
    main()
