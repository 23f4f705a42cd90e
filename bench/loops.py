# SPDX-License-Identifier: MIT
"""How fast the CPU runs integer code: the loops of loops.S, timed by the host between their marks."""
import pathlib
import shutil
import subprocess

import programs

SOURCE = pathlib.Path(__file__).with_name("loops.S")
DATA, CRC_PASSES, SIEVE_PASSES, FIB_PASSES, FIB_N = 65536, 200, 200, 500, 20


def sieve_instructions():
    """Of one pass: REP STOSL counts as one."""
    struck = bytearray(DATA)
    count = 5 + 2
    for n in range(2, 256):
        count += 2 + 3
        if struck[n]:
            continue
        multiples = range(2 * n, DATA, n)
        count += 1 + 4 * len(multiples)
        struck[2 * n::n] = bytes([1]) * len(multiples)
    return count


def fib_instructions(n):
    return 8 if n < 2 else 16 + fib_instructions(n - 1) + fib_instructions(n - 2)


LOOPS = {
    "sum over bytes": CRC_PASSES * (4 + 11 * DATA),
    "sieve": SIEVE_PASSES * sieve_instructions(),
    "recursive calls": FIB_PASSES * (4 + fib_instructions(FIB_N)),
}


def image(folder):
    """Assembles loops.S into a firmware image; needs only binutils."""
    for tool in ("as", "ld"):
        if not shutil.which(tool):
            raise programs.Skip(f"{tool} is not installed (package binutils)")
    obj, rom = folder / "loops.o", folder / "loops.bin"
    subprocess.run(["as", "--32", "-o", obj, SOURCE], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0xF0000", "--oformat", "binary", "-o", rom, obj], check=True)
    return rom


def rows(running, folder, rounds):
    rom = image(folder)
    times = {name: [] for name in running}
    for _ in range(min(rounds, 5)):
        for name, command in running.items():
            marks = programs.timed_marks(command + ["-m", "16", "-bios", str(rom)])
            times[name].append([end - start for start, end in zip(marks, marks[1:])])
    for n, (loop, instructions) in enumerate(LOOPS.items()):
        speed = {name: programs.median([instructions / t[n] / 1e6 for t in taken]) for name, taken in times.items()}
        yield f"integer code: {loop}", "million instructions/s", speed, True
