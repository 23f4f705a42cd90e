#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Slowdown of programs in guests of minivm's software CPU and of QEMU's TCG against the same programs run natively.

usage: bench/cpu/run.py [--build DIR] [--accel ACCEL]... [--quick] [--pairs N] [--seconds S] [--no-qemu] [--json FILE] [--list] [name...]

A name is a row or a group (--list shows them), "programs" for all rows that are programs, or "boot". Without one everything runs.
--accel takes what minivm's -accel takes and may be repeated: each is a column, e.g. --accel soft --accel soft,jit=off.

The host and the guests take turns, row by row; each figure is a median of such rounds. docs/benchmarks.md says how to read it.
Exit status 1: a row gave a wrong result in minivm.
"""
import argparse
import contextlib
import datetime
import json
import math
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import boot
import cpurows
from cpurows import context, vm

QEMU = "QEMU TCG"
BOOT = "boot"
# By what part a guest's clock may differ from the host's in all rounds before a row says so, if it kept the host's CPU
# busy for long enough to tell.
CLOCK_TOLERANCE, CLOCK_SECONDS = 0.15, 0.1


def machines(args):
    """{column: command} of the emulators to measure."""
    minivm = str(pathlib.Path(args.build).resolve() / "minivm")
    if not os.access(minivm, os.X_OK):
        raise SystemExit(f"run.py: there is no '{minivm}'; `make` builds it, --build says where")
    found = {f"minivm {accel}": [minivm, "-accel", accel] for accel in args.accel or ["soft"]}
    if not args.no_qemu:
        qemu = shutil.which("qemu-system-i386")
        if qemu:
            found[QEMU] = [qemu, "-accel", "tcg", "-nic", "none"]
        else:
            print("SKIP QEMU: qemu-system-i386 is not installed", file=sys.stderr)
    return found


class Column:
    """The host or an emulator, which is started again if a row kills it."""

    def __init__(self, name, start):
        self.name, self.start = name, start
        self.server = None

    def run(self, row, count):
        """A Result, or Failed."""
        try:
            if not self.server:
                self.server = self.start()
            return self.server.run(row, count)
        except (vm.Timeout, EOFError, OSError) as e:
            self.close()  # the next row starts it anew
            raise cpurows.Failed(f"{self.name}: {str(e).splitlines()[0]}") from e

    def close(self):
        if self.server:
            self.server.close()
            self.server = None


def calibrate(column, row, seconds):
    """How many units of work take about that long; what runs warm is measured, not the first time."""
    count = 1
    while True:
        took = column.run(row, count).outside
        if took >= seconds / 3:
            return max(1, round(count * seconds / took))
        count = min(count * 20, math.ceil(count * seconds / 2 / max(took, seconds / 1000)) + 1)


def measure(row, columns, args):
    """{column: {...}} of one row: seconds a unit in each round and by the guest's own account, wall clocks, checksum or failure."""
    counts, found = {}, {c.name: {"seconds": [], "guest": [], "walls": [], "clock": []} for c in columns}
    for turn in range(args.pairs + 1):
        for c in columns:
            if "failed" in found[c.name]:
                continue
            mine = found[c.name]
            try:
                if not turn:
                    counts[c.name] = mine["units"] = calibrate(c, row.name, args.seconds)
                    continue
                result = c.run(row.name, counts[c.name])
            except cpurows.Failed as e:
                mine["failed"] = str(e)
                continue
            mine["checksum"] = result.checksum
            mine["seconds"].append(result.outside / counts[c.name])
            mine["guest"].append(result.cpu / counts[c.name])
            mine["walls"].append((result.wall, result.outside_wall))
            if result.outside > CLOCK_SECONDS:
                mine["clock"].append(result.wall / result.outside_wall)
    return found


def median_of_pairs(a, b):
    """The median of a / b, by rounds; None without any."""
    quotients = [x / y for x, y in zip(a, b) if y > 0]
    return statistics.median(quotients) if quotients else None


def summarise(found, emulators):
    """Slowdowns against the host and the first minivm's advantage over QEMU; also remarks."""
    native = found["native"]
    slow, better, remarks = {}, {}, []
    if "failed" in native:
        return slow, better, [native["failed"]]
    for name in emulators:
        mine = found[name]
        if "failed" in mine:
            remarks.append(mine["failed"])
            continue
        slow[name] = median_of_pairs(mine["seconds"], native["seconds"])
        if mine["checksum"] != native["checksum"]:
            remarks.append(f"{name} computes {mine['checksum']}, the host {native['checksum']}")
        # The host's stop watch may run on while this program waits for a CPU: only what all rounds agree on counts.
        clocks = mine["clock"]
        if clocks and (max(clocks) < 1 - CLOCK_TOLERANCE or min(clocks) > 1 + CLOCK_TOLERANCE):
            remarks.append(f"{name}: {statistics.median(clocks):.2f} guest seconds in a second")
    for name in emulators:
        if name != QEMU and name in slow and QEMU in slow:
            better[name] = median_of_pairs(found[QEMU]["seconds"], found[name]["seconds"])
    return slow, better, remarks


def geometric_mean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def number(value):
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def micro(seconds):
    return number(seconds * 1e6)


def table_head(titles):
    print("| " + " | ".join(titles) + " |")
    print("|" + "---|" * len(titles), flush=True)


def table_row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def run_programs(rows, emulators, args, record):
    """Prints the table of programs and that of their groups; returns whether minivm was always right."""
    minivms = [name for name in emulators if name != QEMU]
    versus = minivms if QEMU in emulators else []
    with tempfile.TemporaryDirectory(prefix="minivm-bench-") as folder, contextlib.ExitStack() as stack:
        columns = [Column("native", lambda: cpurows.Host(folder))]
        columns += [Column(name, lambda name=name: cpurows.Guest(name, emulators[name])) for name in emulators]
        for c in columns:
            stack.callback(c.close)
        table_head(["group", "row", "native us", *[f"{name}, times slower" for name in emulators],
                    *[f"{name}, times as fast as QEMU" for name in versus], "remarks"])
        groups, right = {}, True
        for row in rows:
            found = measure(row, columns, args)
            slow, better, remarks = summarise(found, emulators)
            record["rows"][row.name] = dict(row._asdict(), measured=found, slower=slow, faster_than_qemu=better,
                                            remarks=remarks)
            groups.setdefault(row.group, []).append((slow, better))
            for name in minivms:
                right &= "failed" not in found[name] and found[name].get("checksum") == found["native"].get("checksum")
            native = statistics.median(found["native"]["seconds"]) if found["native"]["seconds"] else 0
            table_row([row.group, row.name, micro(native), *[number(slow.get(n)) for n in emulators],
                       *[number(better.get(n)) for n in versus], "; ".join(remarks)])
    print()
    table_head(["group", "rows", *[f"{name}, times slower" for name in emulators],
                *[f"{name}, times as fast as QEMU" for name in versus]])
    for group, members in groups.items():
        slow = {n: geometric_mean([s.get(n) for s, _ in members]) for n in emulators}
        better = {n: geometric_mean([b.get(n) for _, b in members]) for n in versus}
        record["groups"][group] = {"rows": len(members), "slower": slow, "faster_than_qemu": better}
        table_row([group, str(len(members)), *[number(slow[n]) for n in emulators], *[number(better[n]) for n in versus]])
    return right


def run_boots(emulators, args, record):
    """Prints the table of boots."""
    print()
    table_head(["boot", *[f"{name}, CPU s (wall s)" for name in emulators],
                *[f"{name}, times as fast as QEMU" for name in emulators if name != QEMU and QEMU in emulators]])
    with tempfile.TemporaryDirectory(prefix="minivm-bench-") as folder:
        for what, arguments, marker in boot.cases(pathlib.Path(folder)):
            taken = {name: [] for name in emulators}
            for _ in range(max(1, min(args.pairs, 5))):
                for name, command in emulators.items():
                    taken[name].append(boot.time_to(command + arguments, marker))
            cells, better = [], {}
            for name in emulators:
                cpu, wall = (statistics.median(t[n] for t in taken[name]) for n in (0, 1))
                cells.append(f"{number(cpu)} ({number(wall)})")
                if name != QEMU and QEMU in emulators:
                    better[name] = median_of_pairs([t[0] for t in taken[QEMU]], [t[0] for t in taken[name]])
            record["boot"][what] = {"cpu_wall": taken, "faster_than_qemu": better}
            table_row([what, *cells, *[number(b) for b in better.values()]])


def host_model():
    with open("/proc/cpuinfo") as f:
        match = re.search(r"model name\s*:\s*(.*)", f.read())
    return match.group(1) if match else platform.machine()


def choose(names, everything):
    """(rows that the names mean, whether to measure boots)."""
    if not names:
        return everything, True
    known = {r.name for r in everything} | {r.group for r in everything} | {BOOT, "programs"}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise SystemExit(f"run.py: there is no row or group '{unknown[0]}'; --list shows them")
    return [r for r in everything if {r.name, r.group, "programs"} & set(names)], BOOT in names


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(context.ROOT / "build"), help="where minivm was built")
    parser.add_argument("--accel", action="append", help="minivm's -accel (soft); may be repeated")
    parser.add_argument("--quick", action="store_true", help="about two minutes: short rounds, three of them")
    parser.add_argument("--pairs", type=int, help="rounds (7; 3 with --quick)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (0.3; 0.06 with --quick)")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--json", help="also write everything measured to this file")
    parser.add_argument("--list", action="store_true", help="print the rows")
    parser.add_argument("names", nargs="*", metavar="name")
    args = parser.parse_args()
    args.pairs = args.pairs or (3 if args.quick else 7)
    args.seconds = args.seconds or (0.06 if args.quick else 0.3)
    try:
        everything = cpurows.rows()
        if args.list:
            for row in everything:
                print(f"{row.group:9} {row.name:16} {row.what}")
            return 0
        rows, boots = choose(args.names, everything)
        emulators = machines(args)
        record = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "host": host_model(),
                  "load": os.getloadavg(), "pairs": args.pairs, "seconds": args.seconds, "commands": emulators,
                  "versions": {n: subprocess.run([c[0], "-version"], capture_output=True, text=True).stdout.splitlines()[:1]
                               for n, c in emulators.items()}, "rows": {}, "groups": {}, "boot": {}}
        right = not rows or run_programs(rows, emulators, args, record)
        if boots:
            run_boots(emulators, args, record)
    except context.Skip as e:
        print(f"SKIP: {e}", file=sys.stderr)
        return 0
    except RuntimeError as e:  # an emulator does not start
        raise SystemExit(f"run.py: {e}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(record, indent=1) + "\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
