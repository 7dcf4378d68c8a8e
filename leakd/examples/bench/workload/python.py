"""Reads and writes JSON for as many milliseconds as each line of its standard
input says, and answers with how many documents that were, in how many ns of CPU time,
and their median and 99th percentile in ns."""

import json
import sys
import time

RECORD = {"name": "x" * 600, "values": list(range(100)), "more": {"a": 1.5, "b": None}}
TEXT = json.dumps([dict(RECORD, number=number) for number in range(20)])

for line in sys.stdin:
    times = []
    cpu = time.process_time_ns()
    begin = time.perf_counter_ns()
    end = begin + int(line) * 1_000_000
    now = begin
    while now < end:
        json.dumps(json.loads(TEXT))
        last, now = now, time.perf_counter_ns()
        times.append(now - last)
    cpu = time.process_time_ns() - cpu
    times.sort()
    count = len(times)
    print(count, cpu, times[count // 2], times[count * 99 // 100], flush=True)
