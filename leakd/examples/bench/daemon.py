#!/usr/bin/env python3
"""What the daemon costs, and how soon it finds a leak: on real processes.

    cargo build --release -p leakd --bins
    sudo leakd/examples/bench/daemon.py watch find outstanding nginx redis

Needs root, cc, nginx, wrk, redis-server and redis-benchmark. The daemon that is
measured has a socket and a configuration of its own.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True  # `servers` is in the source tree

from servers import end_with_us, free_port, require, until_it_answers

ROOT = pathlib.Path(__file__).resolve().parents[3]

WORKER = r"""
/* Wakes ten times a second and replaces a few of its blocks; leaks so many
 * bytes a minute. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *volatile sink;
__attribute__((noinline)) static void leak_slowly(void)
{
	sink = memset(malloc(1024), 'x', 1024);
}
int main(int count, char **arguments)
{
	static char *kept[64];
	long per_minute = count > 1 ? atol(arguments[1]) : 0, leaked = 0;
	for (long round = 0;; round++) {
		for (int i = 0; i < 8; i++) {
			char **slot = &kept[rand() % 64];
			free(*slot);
			*slot = memset(malloc(100 + rand() % 4000), 1, 100);
		}
		while (leaked < per_minute / 600 * round) {
			leak_slowly();
			leaked += 1024;
		}
		usleep(100000);
	}
}
"""

HOLDER = r"""
/* Takes so many blocks when it is told to, and keeps them. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **arguments)
{
	for (getchar(); count > 0; count = 0)
		for (long i = 0; i < atol(arguments[1]); i++) {
			*(volatile char *)malloc(64) = 1;
			if (i % 100 == 0)
				usleep(5000); /* or the governor would sample */
		}
	puts("done");
	fflush(stdout);
	pause();
}
"""

PLANTED = r"""
/* A leak in a server that answers by writev or sendfile: 1 KiB in every
 * sixteenth answer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
static void *volatile sink;
__attribute__((noinline)) void leak_in_answer(void)
{
	sink = memset(malloc(1024), 'x', 1024);
}
ssize_t writev(int fd, const struct iovec *parts, int count)
{
	static ssize_t (*next)(int, const struct iovec *, int);
	static unsigned answers;
	if (!next)
		next = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
	if (++answers % 16 == 0)
		leak_in_answer();
	return next(fd, parts, count);
}
"""


class Machine:
    """Directories and processes that go with the benchmark."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="leakd-bench-"))
        self.processes = []

    def compile(self, name, source, *options):
        path = self.directory / name
        subprocess.run(
            ["cc", "-g", "-O1", *options, "-x", "c", "-o", path, "-"],
            input=source.encode(), check=True)
        return path

    def start(self, *command, **options):
        process = subprocess.Popen([str(word) for word in command], preexec_fn=end_with_us,
                                   **options)
        self.processes.append(process)
        return process

    def end(self):
        # A server that is killed leaves its workers behind.
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        subprocess.run(["rm", "-rf", self.directory], check=True)


class Daemon:
    """A daemon of our own."""

    def __init__(self, machine, config=""):
        self.socket = machine.directory / "leakd.sock"
        path = machine.directory / "leakd.toml"
        path.write_text(f"{config}\n[server]\nsocket = '{self.socket}'\n")
        self.log = open(machine.directory / "log", "w+", encoding="utf-8")
        self.process = machine.start(
            ROOT / "target/release/leakd", "--config", path, stderr=self.log)
        while not self.socket.exists():
            if self.process.poll() is not None:
                self.log.seek(0)
                sys.exit(self.log.read())
            time.sleep(0.1)

    def ask(self, **question):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(json.dumps({"v": 1, **question}).encode() + b"\n")
            with client.makefile() as answer:
                return json.loads(answer.readline())

    def process_view(self, pid):
        found = self.ask(ask="targets", pid=pid).get("processes")
        return found[0] if found else None

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().split(") ")[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def say(text):
    print(text, flush=True)


def watch(machine, arguments):
    """500 processes that are only watched."""
    worker = machine.compile("worker", WORKER)
    for _ in range(500):
        machine.start(worker)
    daemon = Daemon(machine)
    time.sleep(45)
    before, began = daemon.cpu(), time.monotonic()
    time.sleep(90)
    share = (daemon.cpu() - before) / (time.monotonic() - began)
    status = daemon.ask(ask="status")
    say(f"watch: {status['watch']['processes']} processes, {share:.3%} of one CPU, "
        f"{daemon.resident():.1f} MiB resident, {status['own']['descriptors']} descriptors, "
        f"a look {status['watch']['pass_us'] / 1000:.1f} ms every "
        f"{status['watch']['interval_ms'] / 1000:.0f} s")
    daemon.end()


def find(machine, arguments):
    """One process that leaks 1 MB a minute among 300."""
    worker = machine.compile("worker", WORKER)
    for _ in range(299):
        machine.start(worker)
    daemon = Daemon(machine)
    time.sleep(20)
    leaking = machine.start(worker, 1_000_000)
    began, suspect, named, wrong = time.monotonic(), None, None, set()
    while named is None and time.monotonic() - began < 600:
        time.sleep(1)
        age = time.monotonic() - began
        for view in daemon.ask(ask="targets")["processes"]:
            if view["pid"] != leaking.pid:
                if view["comm"] == "worker" and view["verdict"] == "growing":
                    wrong.add(view["pid"])
                continue
            if view["verdict"] == "growing" and suspect is None:
                suspect = age
            evidence = (view["trace"] or {}).get("evidence")
            place = evidence["sites"][0]["place"] if evidence else ""
            if "leak_slowly" in place:
                named = age
    say(f"find: suspect after {suspect and round(suspect)} s, line named after "
        f"{named and round(named)} s, {len(wrong)} others suspected")
    daemon.end()


def outstanding(machine, arguments):
    """Ten targets with a hundred thousand blocks each."""
    holder = machine.compile("holder", HOLDER)
    daemon = Daemon(machine, "mode = 'off'\n[trace]\nmax_targets = 10\n"
                    "[budget]\ntarget_percent = 100\nmachine_percent = 100")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holders = [machine.start(holder, 100_000, **pipes) for _ in range(10)]
    for one in holders:
        answer = daemon.ask(ask="attach", pid=one.pid)
        assert answer["answer"] == "attached", answer
    for one in holders:
        one.stdin.write(b"\n")
        one.stdin.flush()
        one.stdout.readline()
    time.sleep(12)
    views = [daemon.process_view(one.pid) for one in holders]
    blocks = sum(view["trace"]["outstanding_blocks"] for view in views)
    assert not any(view["trace"]["estimated"] for view in views), "it was sampled"
    before, began = daemon.cpu(), time.monotonic()
    time.sleep(20)
    share = (daemon.cpu() - before) / (time.monotonic() - began)
    held = daemon.resident()
    began = time.monotonic()
    report = daemon.ask(ask="report", all=True)
    tables = sum(target["coverage"]["table_bytes"] for target in report["report"]["targets"])
    say(f"outstanding: {blocks} blocks of {len(views)} targets, {held:.1f} MiB resident "
        f"({daemon.resident():.1f} after a report of all, which took "
        f"{time.monotonic() - began:.1f} s), {share:.2%} of a CPU, "
        f"{tables / 2**20:.0f} MiB of tables in the kernel")
    daemon.end()


def rounds(daemon, pid, measure, number):
    """Ratios of traced to untraced, each with its own neighbour. A round of load
    goes unmeasured before: the governor needs a second to see it, and a window
    or two to find how far apart they must be."""
    ratios, rates = [], []
    for _ in range(number):
        daemon.ask(ask="detach", pid=pid)
        untraced = measure()
        answer = daemon.ask(ask="attach", pid=pid)
        assert answer["answer"] == "attached", answer
        measure()
        traced = measure()
        rates.append(untraced)
        ratios.append(traced / untraced)
    governor = daemon.process_view(pid)["trace"]["governor"]
    return (f"traced/untraced {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f} of {number}), untraced "
            f"{statistics.median(rates):,.0f}/s, {governor['step']}, "
            f"open {governor['open_percent']:.1f} %, cost {governor['cost_percent']:.1f} %")


def nginx(machine, arguments):
    """nginx, one worker, with a planted leak, under wrk."""
    planted = machine.compile("planted.so", PLANTED, "-shared", "-fPIC", "-ldl")
    machine.directory.chmod(0o755)
    port = free_port()
    config = machine.directory / "nginx.conf"
    config.write_text(f"""
        daemon off; user root; worker_processes 1; pid {machine.directory}/nginx.pid;
        error_log {machine.directory}/nginx.log;
        events {{ worker_connections 64; }}
        http {{ access_log off; keepalive_requests 1000000;
                server {{ listen 127.0.0.1:{port}; location / {{ return 200 'hello'; }}
                          location = /requests {{ stub_status; }} }} }}
        env LD_PRELOAD;""")
    server = machine.start("nginx", "-c", config, env={**os.environ, "LD_PRELOAD": str(planted)})
    until_it_answers(server, port)

    def requests():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/requests") as answer:
            return int(answer.read().split()[9])

    requests()
    worker = int(subprocess.check_output(["pgrep", "-P", str(server.pid)]))
    for budget in (5, 20):
        daemon = Daemon(machine, "[watch]\nstartup = '0s'\n[include]\ncomm = ['nginx']\n"
                        f"[budget]\ntarget_percent = {budget}\nmachine_percent = 50")
        flood = machine.start("wrk", "-t1", "-c16", "-d3600s", f"http://127.0.0.1:{port}/",
                              stdout=subprocess.DEVNULL)
        began, named, traced, at = time.monotonic(), None, None, (time.monotonic(), requests())
        rates = []
        while time.monotonic() - began < arguments.patience:
            time.sleep(0.5)
            view, now = daemon.process_view(worker), (time.monotonic(), requests())
            trace = view and view["trace"] and view["trace"]["active"] and view["trace"]
            if trace and traced is None:
                traced = time.monotonic()
            if trace and time.monotonic() - traced > arguments.settle:
                rates.append(((now[1] - at[1]) / (now[0] - at[0]), trace["governor"]))
            at = now
            evidence = trace and trace.get("evidence")
            places = [site["place"] for site in evidence["sites"]] if evidence else []
            if named is None and any("leak_in_answer" in place for place in places):
                named = time.monotonic() - began
                place = [("leak_in_answer" in one) for one in places].index(True) + 1
                say(f"nginx, budget {budget} %: planted leak named after {named:.0f} s, "
                    f"place {place} of {len(places)}")
            if named and rates and time.monotonic() - traced > arguments.settle + arguments.span:
                break
        if named is None:
            say(f"nginx, budget {budget} %: planted leak NOT named within {arguments.patience} s")
        # Between two windows there are no probes: the neighbours in time, on a
        # machine whose speed changes by the minute.
        closed = [rate for (rate, governor), (_, before) in zip(rates[1:], rates)
                  if not governor["open"] and not before["open"]]
        if closed:
            governor = rates[-1][1]
            mean = statistics.mean(rate for rate, _ in rates)
            say(f"nginx, budget {budget} %: {mean:,.0f} requests/s of "
                f"{statistics.mean(closed):,.0f} between windows: "
                f"{mean / statistics.mean(closed):.3f} ({len(rates) / 2:.0f} s, "
                f"{governor['windows']} windows, {governor['step']}, open "
                f"{governor['open_percent']:.1f} %, cost {governor['cost_percent']:.1f} %)")
        flood.kill()
        flood.wait()
        daemon.end()


def redis(machine, arguments):
    """redis-server under redis-benchmark."""
    port = free_port()
    server = machine.start("redis-server", "--port", port, "--save", "", "--daemonize", "no",
                           "--dir", machine.directory, stdout=subprocess.DEVNULL)
    until_it_answers(server, port)

    def measure():
        text = subprocess.check_output(
            ["redis-benchmark", "-p", str(port), "-t", "set", "-c", "16", "-d", "200",
             "-n", str(arguments.requests), "-r", "10000", "--csv"], text=True)
        return float(text.strip().splitlines()[-1].split(",")[1].strip('"'))

    for budget in (5, 20):
        daemon = Daemon(machine, "mode = 'off'\n"
                        f"[budget]\ntarget_percent = {budget}\nmachine_percent = 50")
        say(f"redis, budget {budget} %: "
            + rounds(daemon, server.pid, measure, arguments.rounds))
        daemon.end()


# What is taken from PATH, beside a compiler.
TOOLS = {"nginx": ["nginx", "pgrep", "wrk"], "redis": ["redis-server", "redis-benchmark"]}
PARTS = {"watch": watch, "find": find, "outstanding": outstanding, "nginx": nginx, "redis": redis}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + "; all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settle", type=int, default=20, help="seconds until nginx is measured")
    parser.add_argument("--span", type=int, default=180, help="seconds that it is measured")
    parser.add_argument("--requests", type=int, default=600_000, help="of redis, each time")
    parser.add_argument("--patience", type=int, default=600, help="for the planted leak")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    parts = arguments.parts or list(PARTS)
    require("cc", ROOT / "target/release/leakd",
            *(tool for part in parts for tool in TOOLS.get(part, [])))
    for part in parts:
        machine = Machine()
        try:
            PARTS[part](machine, arguments)
        finally:
            machine.end()


if __name__ == "__main__":
    main()
