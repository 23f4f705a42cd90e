# SPDX-License-Identifier: MIT
"""The programs of the CPU benchmark (bench/cpu) compute in a guest of the software CPU what they compute on the host."""
import sys
import tempfile

import context
from context import cost

sys.path.insert(0, str(context.ROOT / "bench" / "cpu"))
import cpurows  # noqa: E402


def checksums(server, rows):
    """{row: checksum or what went wrong}, two units of work each: the second finds what the first left behind."""
    found = {}
    for row in rows:
        try:
            found[row.name] = server.run(row.name, 2, timeout=180).checksum
        except cpurows.Failed as e:
            found[row.name] = str(e)
    return found


@cost(40)
def test_every_row_gives_the_host_s_checksum():
    rows = cpurows.rows()
    with tempfile.TemporaryDirectory(prefix="minivm-rows-") as folder:
        host = cpurows.Host(folder)
        try:
            expected = checksums(host, rows)
        except OSError as e:
            raise context.Skip(f"this host does not run i386 programs: {e}")
        finally:
            host.close()
    guest = cpurows.Guest("minivm", [context.minivm(), "-accel", "soft"])
    try:
        found = checksums(guest, rows)
        assert guest.power_off() == 0
    finally:
        guest.close()
    wrong = [f"{name}: {found[name]}, on the host {expected[name]}" for name in expected if found[name] != expected[name]]
    assert not wrong, "\n".join(wrong)
