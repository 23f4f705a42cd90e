#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the tests: unit tests, differential test, fuzz replays, guest tests, layout and documentation.

usage: tests/run.py [--build DIR] [--jobs N] [--timeout S] [--long] [--sanitized] [--list] [name...]

A name selects the tests whose name contains it. Each result is one line; the last line counts them:
"N passed, N failed, N skipped". A skipped test says why.

    unit/MODULE/PROGRAM: TEST   a test of a unit test program (cmocka, TAP output); those of the CPU also with
                                the translator (jit) and with it in lock-step with the interpreter (verify),
                                that of the engine also without (interpreter)
    diff/SEED                   random instructions on interpreter, translator and the host's CPU (tests/diff)
    fuzz/TARGET                 a fixed sequence of hostile inputs, and those in tests/data/fuzz/TARGET
    guest/FILE: TEST            a function test_* of tests/guest/FILE.py; with ": PART" behind it where one guest does for several
    tree/TEST                   layout, man page, command reference
"""
import argparse
import concurrent.futures
import contextlib
import functools
import importlib.util
import inspect
import os
import pathlib
import random
import re
import shutil
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

# Instructions of the differential test: a run's, one with --long.
DIFF_TOTAL, DIFF_LONG = 10_000_000, 100_000_000
DIFF_SEEDS = [1, 2, 3, 4]
FUZZ_LONG = 20  # times as many inputs
# A guest test that takes longer than this without sanitizers is not run with them.
SANITIZED_COST = 45


def result(kind, name, seconds=None, detail=""):
    with print_lock:
        counts[kind] += 1
        took = f" ({seconds:.1f} s)" if seconds is not None else ""
        first = detail.splitlines()[0] if kind == "SKIP" and detail else ""
        print(f"{kind:4} {name}{took}{': ' + first if first else ''}", flush=True)
        if kind == "FAIL" and detail:
            print("     " + detail.rstrip().replace("\n", "\n     "), flush=True)


def last_words(output):
    """The end of what a program printed; sanitizers say the essential first."""
    at = output.find("ERROR: ")
    at = output.find("runtime error: ") if at < 0 else at
    return output[max(0, at - 200):][:4000] if at >= 0 else output[-3000:]


def run_program(command, timeout, env=None):
    """(exit status, standard output, standard error); status None: it was still running."""
    try:
        p = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace",
                           timeout=timeout, env=env, cwd=ROOT, stdin=subprocess.DEVNULL)
        return p.returncode, p.stdout, p.stderr
    except subprocess.TimeoutExpired as e:
        return None, *[(o or b"").decode(errors="replace") for o in (e.stdout, e.stderr)]


def run_unit(name, binary, build, timeout, **environment):
    """One unit test program: each of its tests is a line of TAP."""
    start = time.monotonic()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", MINIVM_BUILD=str(build), **environment)
    status, out, err = run_program([binary], timeout, env)
    if status is None:
        result("FAIL", name, timeout, f"still running after {timeout} s\n{last_words(out + err)}")
        return
    seen = 0
    for line in out.splitlines():
        match = re.match(r"(not )?ok \d+ -? ?(.*)", line)
        if not match:
            continue
        seen += 1
        test = match.group(2).strip()
        if re.search(r"#\s*skip", line, re.I):
            reason = re.findall(r"(?m)^.*SKIP[: ].*$", out + err)
            result("SKIP", f"{name}: {re.sub(r'#.*', '', test).strip()}", detail=reason[0] if reason else
                   "the test program says so")
        elif match.group(1):
            result("FAIL", f"{name}: {test}", detail=last_words(out + err))
        else:
            result("ok", f"{name}: {test}")
    reason = re.search(r"(?m)^SKIP: (.*)$", out + err)
    if status == 0 and not seen and reason:
        result("SKIP", name, detail=reason.group(1))
        return
    failed_silently = status != 0 and "not ok" not in out
    if not seen or failed_silently:
        result("FAIL", name, time.monotonic() - start,
               f"exit status {status}, {seen} results\n{last_words(out + err)}")


def load_tests(path, prefix):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("test_") and function.__module__ == path.stem:
            yield f"{prefix}/{path.stem}: {name[5:]}", function


class Parts:
    """Reports the parts of one test (context.parts)."""

    def __init__(self, name, names):
        self.name, self.left = name, list(names)

    @contextlib.contextmanager
    def __call__(self, part):
        start = time.monotonic()
        self.left.remove(part)
        try:
            yield
            result("ok", f"{self.name}: {part}", time.monotonic() - start)
        except context.Skip as e:
            result("SKIP", f"{self.name}: {part}", detail=str(e))
        except AssertionError:
            result("FAIL", f"{self.name}: {part}", time.monotonic() - start, traceback.format_exc())
        except BaseException:
            self.left.insert(0, part)
            raise

    def report_rest(self, kind, seconds, detail):
        """One report for each part that has none, or for the test as a whole."""
        for part in self.left:
            result(kind, f"{self.name}: {part}", seconds, detail)
            detail = detail if kind == "SKIP" else "not reached"
        if not self.left and kind == "FAIL":
            result(kind, self.name, seconds, detail)


def run_function(name, function, *args):
    """A test that passes by returning, is skipped by context.Skip and fails by any other exception."""
    start = time.monotonic()
    cost, parts = getattr(function, "cost", 0), getattr(function, "parts", ())
    report = Parts(name, parts)
    try:
        if context.sanitized and cost > SANITIZED_COST:
            raise context.Skip(f"takes about {cost} s without sanitizers, several times as long with them")
        function(*args, *([report] if parts else []))
        if not parts:
            result("ok", name, time.monotonic() - start)
        elif report.left:
            report.report_rest("FAIL", None, "the test ended without it")
    except context.Skip as e:
        if parts:
            report.report_rest("SKIP", None, str(e))
        else:
            result("SKIP", name, detail=str(e))
    except Exception:
        report.report_rest("FAIL", time.monotonic() - start, traceback.format_exc())


def run_checked(command, timeout):
    status, out, err = run_program(command, timeout)
    if status is None:
        raise AssertionError(f"still running after {timeout} s\n{last_words(out + err)}")
    if status:
        raise AssertionError(f"exit status {status}\n{last_words(out + err)}")
    return out


# ---- Differential test ----

def diff_test(program, seed, count, *options):
    if context.sanitized:
        raise context.Skip("ASan's shadow lies below 4 GiB, where the instructions must find nothing")
    if os.uname().machine != "x86_64":
        raise context.Skip("the host's CPU, which the test compares with, is no x86-64")
    run_checked([program, "--seed", seed, "--count", count, *options], 1800)


# ---- Fuzz replays ----

def fuzz_test(program, name, factor):
    for path in sorted((ROOT / "tests" / "data" / "fuzz" / name).glob("*")):
        run_checked([program, path], 300)
    run_checked([program, "--times", factor], 600 * factor)


# ---- The tree itself ----

def tree_layout():
    tool = context.requires("clang-format")
    version = re.search(r"version (\d+)", run_program([tool, "--version"], 60)[1])
    if not version or version.group(1) != "14":
        raise context.Skip("clang-format is not version 14, whose layout the tree has")
    run_checked(["make", "-s", "format-check"], 300)


def tree_command_reference(build):
    printed = run_checked([build / "mkman", "--markdown"], 60)
    path = ROOT / "docs" / "commands.md"
    assert path.exists(), "docs/commands.md is missing; `make docs` writes it"
    assert path.read_text() == printed, "docs/commands.md is not what the tables say; `make docs` writes it"


def tree_man_pages(build):
    groff = shutil.which("groff")
    mandoc = shutil.which("mandoc")
    if not groff and not mandoc:
        raise context.Skip("neither groff nor mandoc is installed")
    pages = sorted(build.glob("*.1")) + sorted((ROOT / "docs").glob("*.1"))
    assert pages, "there is no man page"
    for page in pages:
        command = [groff, "-man", "-Tascii", "-ww", "-z", page] if groff else [mandoc, "-T", "lint", page]
        status, out, err = run_program(command, 60)
        assert status == 0 and not (out + err).strip(), f"{page.name}: {out}{err}"


def collect(args, build):
    """[(name, cost, function, arguments)] of all tests."""
    jobs = []
    for binary in sorted(build.glob("unit/*/*_test")):
        name = str(binary.relative_to(build))
        if (ROOT / "tests" / f"{name}.c").exists():  # else it was deleted since it was built
            jobs.append((name, 0, run_unit, (name, binary, build, args.timeout)))
            # See tests/unit/cpu/engine.h; the engine as a whole runs with the translator unless told otherwise.
            again = ("jit", "verify") if binary.parent.name == "cpu" else \
                ("interpreter",) if name == "unit/vmm/soft_test" else ()
            if os.uname().machine == "x86_64":
                for cpu in again:
                    jobs.append((f"{name} ({cpu})", 0, functools.partial(run_unit, MINIVM_TEST_CPU=cpu),
                                 (f"{name} ({cpu})", binary, build, args.timeout)))

    def add(name, cost, function, *arguments):
        jobs.append((name, cost, run_function, (name, function, *arguments)))

    for folder in ("unit", "guest"):
        for path in sorted((ROOT / "tests" / folder).glob("*_test.py" if folder == "guest" else "*/*_test.py")):
            try:
                for name, function in load_tests(path, folder):
                    add(name, getattr(function, "cost", 1), function)
            except Exception:
                trouble = traceback.format_exc()

                def cannot_load(trouble=trouble):
                    raise AssertionError(trouble)
                add(f"{folder}/{path.stem}", 0, cannot_load)

    total = DIFF_LONG if args.long else DIFF_TOTAL
    # A new one each time only in the long run, which has the time to look for what is rare.
    chosen = random.SystemRandom().randrange(1000, 1 << 32) if args.long else 5
    for seed in DIFF_SEEDS + [chosen]:
        count = total // (len(DIFF_SEEDS) + 1)
        name = f"diff/{'random ' if seed == chosen and args.long else ''}seed {seed}, {count} instructions"
        add(name, 20, diff_test, build / "cpu-diff", seed, count)
    count = total // 20
    add(f"diff/in lock-step, seed {chosen}, {count} instructions", 10, diff_test, build / "cpu-diff", chosen, count, "--verify")
    for source in sorted((ROOT / "tests" / "fuzz").glob("*_fuzz.c")):
        name = source.stem[:-len("_fuzz")]
        add(f"fuzz/{name}", 5, fuzz_test, build / "fuzz" / source.stem, name, FUZZ_LONG if args.long else 1)
    add("tree/layout is clang-format's", 15, tree_layout)
    add("tree/docs/commands.md is what the tables say", 0, tree_command_reference, build)
    add("tree/man pages have no warnings", 0, tree_man_pages, build)
    return jobs


def results_of(job):
    """What a job reports, as far as that is known before it runs."""
    name, _, _, arguments = job
    parts = [part for a in arguments if callable(a) for part in getattr(a, "parts", ())]
    return [f"{name}: {part}" for part in parts] or [name]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one unit test program")
    parser.add_argument("--long", action="store_true", help="ten times the differential test, long fuzz replays")
    parser.add_argument("--sanitized", action="store_true", help="the build has sanitizers: leave out what is too slow")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    build = pathlib.Path(args.build).resolve()
    context.build = build
    context.sanitized = args.sanitized
    context.long = args.long
    if args.sanitized:
        # What the command line says lives until the end of the program.
        os.environ["LSAN_OPTIONS"] = f"suppressions={ROOT}/tests/data/leaks.txt:print_suppressions=0"
        # Mesa's drivers leak, and are unloaded before that is told: no suppression can name them. SDL draws without.
        os.environ.update(SDL_RENDER_DRIVER="software", SDL_FRAMEBUFFER_ACCELERATION="0")

    jobs = collect(args, build)
    if args.names:
        jobs = [j for j in jobs if any(n in r for n in args.names for r in results_of(j))]
    if args.list:
        print("\n".join(r for j in jobs for r in results_of(j)))
        return 0
    start = time.monotonic()
    # Slow ones first, so that the end is not one long test alone.
    jobs.sort(key=lambda j: j[1], reverse=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for future in [pool.submit(function, *a) for _, _, function, a in jobs]:
            future.result()
    print(f"({time.monotonic() - start:.0f} s)")
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped", flush=True)
    return 1 if counts["FAIL"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
