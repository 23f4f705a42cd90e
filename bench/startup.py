# SPDX-License-Identifier: MIT
"""Start-up: from exec to the guest's first instruction and to a boot sector, and memory before the guest runs."""
import programs
import vm


def reset_vector_image():
    """A 64 KiB firmware whose first instruction is a mark and whose next ones end the program."""
    image = bytearray(b"\xf4" * 65536)
    code = programs.MARK + programs.EXIT
    image[0xFFF0:0xFFF0 + len(code)] = code
    return bytes(image)


def boot_sector_image():
    """A floppy image whose boot sector does the same."""
    code = programs.MARK + programs.EXIT
    return (code + bytes(510 - len(code)) + b"\x55\xaa").ljust(1440 * 1024, b"\0")


def resident(command):
    """MiB resident, and MiB of it that no other program shares, while the machine waits for its first instruction."""
    with vm.Vm(command[0], command[1:] + ["-m", "256", "-S"], serial=False) as m:
        fields = {}
        for line in open(f"/proc/{m.process.pid}/smaps_rollup"):
            words = line.split()
            if words[-1] == "kB":
                fields[words[0][:-1]] = int(words[1]) / 1024
        return fields["Rss"], fields["Private_Clean"] + fields["Private_Dirty"]


def rows(running, folder, rounds):
    bios, floppy = folder / "bios.bin", folder / "floppy.img"
    bios.write_bytes(reset_vector_image())
    floppy.write_bytes(boot_sector_image())
    cases = {
        "exec to first guest instruction": ["-bios", str(bios)],
        "exec to boot sector, by SeaBIOS": ["-boot", "a", "-drive", f"file={floppy},if=floppy,format=raw"],
    }
    for row, extra in cases.items():
        times = {name: [] for name in running}
        for _ in range(rounds):
            for name, command in running.items():
                # The last mark: SeaBIOS writes its log there too.
                times[name].append(programs.timed_marks(command + ["-m", "256"] + extra)[-1])
        yield row, "ms", {name: programs.median(t) * 1000 for name, t in times.items()}, False
    memory = {name: resident(command) for name, command in running.items()}
    yield "memory before the guest runs: resident", "MiB", {name: m[0] for name, m in memory.items()}, False
    yield "memory before the guest runs: private", "MiB", {name: m[1] for name, m in memory.items()}, False
