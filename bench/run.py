#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Start-up and disk transfers, minivm beside QEMU in one run, as a table.

usage: bench/run.py [--build DIR] [--rounds N] [startup|exits|linux|net|disk]...

Machines are noisy: programs take turns, medians are shown, and the ratios are what counts. Nothing passes or fails here.
"""
import argparse
import importlib
import pathlib
import sys
import tempfile

import programs

GROUPS = ["startup", "exits", "linux", "net", "disk"]


def number(value):
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio(name, values, more_is_better):
    """How many times better than QEMU; empty without it."""
    if name == "QEMU TCG" or "QEMU TCG" not in values:
        return ""
    quotient = values[name] / values["QEMU TCG"]
    return f" ({quotient if more_is_better else 1 / quotient:.2f}x)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(programs.ROOT / "build"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("groups", nargs="*", metavar="group", help=" ".join(GROUPS))
    args = parser.parse_args()
    unknown = set(args.groups) - set(GROUPS)
    if unknown:
        parser.error(f"there is no group '{unknown.pop()}', only {', '.join(GROUPS)}")
    running = programs.find(pathlib.Path(args.build).resolve())
    print("| what | unit | " + " | ".join(running) + " |")
    print("|---|---|" + "---|" * len(running))
    for group in args.groups or GROUPS:
        with tempfile.TemporaryDirectory(prefix="minivm-bench-") as folder:
            try:
                for what, unit, values, more in importlib.import_module(group).rows(running, pathlib.Path(folder),
                                                                                   args.rounds):
                    cells = [number(values[name]) + ratio(name, values, more) for name in running]
                    print(f"| {what} | {unit} | " + " | ".join(cells) + " |", flush=True)
            except programs.Skip as e:
                print(f"SKIP {group}: {e}", file=sys.stderr)
    print("\nIn brackets: how many times better than QEMU (below 1: worse).")


if __name__ == "__main__":
    main()
