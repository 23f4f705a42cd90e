#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the tests: unit test programs (cmocka, TAP output) and guest tests (tests/guest/*_test.py).

usage: tests/run.py [--build DIR] [--jobs N] [--timeout S] [name...]

A name selects the tests whose name contains it. Each result is one line; the last line counts them:
"N passed, N failed, N skipped". A skipped test says why.
"""
import argparse
import concurrent.futures
import importlib.util
import inspect
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "harness"))
import context  # noqa: E402

print_lock = threading.Lock()
counts = {"ok": 0, "FAIL": 0, "SKIP": 0}


def result(kind, name, seconds=None, detail=""):
    with print_lock:
        counts[kind] += 1
        took = f" ({seconds:.1f} s)" if seconds is not None else ""
        first = detail.splitlines()[0] if kind == "SKIP" and detail else ""
        print(f"{kind:4} {name}{took}{': ' + first if first else ''}", flush=True)
        if kind == "FAIL" and detail:
            print("     " + detail.rstrip().replace("\n", "\n     "), flush=True)


def run_unit(binary, build, timeout):
    """One unit test program: each of its tests is a line of TAP."""
    name = str(binary.relative_to(build))
    start = time.monotonic()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", MINIVM_BUILD=str(build))
    try:
        p = subprocess.run([str(binary)], capture_output=True, text=True, errors="replace", timeout=timeout,
                           env=env, cwd=ROOT)
    except subprocess.TimeoutExpired as e:
        out = (e.stdout or b"")
        result("FAIL", name, timeout, f"still running after {timeout} s\n{out[-2000:]}")
        return
    seen = 0
    for line in p.stdout.splitlines():
        match = re.match(r"(not )?ok \d+ -? ?(.*)", line)
        if not match:
            continue
        seen += 1
        test = match.group(2).strip()
        if re.search(r"#\s*skip", line, re.I):
            reason = re.findall(r"(?m)^.*SKIP[: ].*$", p.stdout + p.stderr)
            result("SKIP", f"{name}: {re.sub(r'#.*', '', test).strip()}", detail=reason[0] if reason else
                   "the test program says so")
        elif match.group(1):
            result("FAIL", f"{name}: {test}", detail=(p.stdout + p.stderr)[-3000:])
        else:
            result("ok", f"{name}: {test}")
    failed_silently = p.returncode != 0 and "not ok" not in p.stdout
    if not seen or failed_silently:
        result("FAIL", name, time.monotonic() - start,
               f"exit status {p.returncode}, {seen} results\n{(p.stdout + p.stderr)[-3000:]}")


def load_guest_tests(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("test_"):
            yield f"guest/{path.stem}: {name[5:]}", function


def run_guest(name, function):
    start = time.monotonic()
    try:
        function()
        result("ok", name, time.monotonic() - start)
    except context.Skip as e:
        result("SKIP", name, detail=str(e))
    except Exception:
        result("FAIL", name, time.monotonic() - start, traceback.format_exc())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one unit test program")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    build = pathlib.Path(args.build).resolve()
    context.build = build

    jobs = []
    for binary in sorted(build.glob("unit/*/*_test")):
        jobs.append((str(binary.relative_to(build)), run_unit, (binary, build, args.timeout)))
    for path in sorted((ROOT / "tests" / "unit").glob("*/*_test.py")) + \
            sorted((ROOT / "tests" / "guest").glob("*_test.py")):
        for name, function in load_guest_tests(path):
            jobs.append((name, run_guest, (name, function)))
    if args.names:
        jobs = [j for j in jobs if any(n in j[0] for n in args.names)]
    if args.list:
        print("\n".join(j[0] for j in jobs))
        return 0
    # Slow ones first, so that the end is not one long test alone.
    jobs.sort(key=lambda j: getattr(j[2][-1], "cost", 0) if j[1] is run_guest else 0, reverse=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for future in [pool.submit(function, *a) for _, function, a in jobs]:
            future.result()
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 1 if counts["FAIL"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
