# SPDX-License-Identifier: MIT
"""-object: what the command line, the monitor and QMP make, and what they refuse."""
import pathlib
import subprocess
import tempfile

import context
import vm


def refusal(*args):
    tried = subprocess.run([context.minivm(), "-display", "none", *args], capture_output=True, text=True,
                           timeout=60 * context.patience())
    lines = tried.stderr.strip().split("\n")
    assert tried.returncode == 1 and len(lines) == 1, (args, tried.returncode, tried.stderr)
    return lines[0]


def test_wrong_objects_are_refused_in_one_line():
    for spec, part in (("nonsense,id=a", "unknown object type 'nonsense'"),
                       ("secre,id=a", "did you mean 'secret'?"),
                       ("secret", "needs id="),
                       ("secret,id=1a,data=x", "is no name"),
                       ("secret,id=a", "data= or file="),
                       ("secret,id=a,data=x,file=y", "data= or file="),
                       ("secret,id=a,data=x,colour=red", "unknown parameter 'colour'"),
                       ("secret,id=a,data=%%%,format=base64", "not in Base64"),
                       ("secret,id=a,data=x,keyid=b", "needs iv="),
                       ("tls-creds-psk,id=a", "needs dir="),
                       ("tls-creds-psk,id=a,dir=/nonexistent", "/nonexistent/keys.psk"),
                       ("tls-creds-x509,id=a,dir=/nonexistent", "/nonexistent/ca-cert.pem"),
                       ("tls-creds-x509,id=a,dir=/nonexistent,endpoint=both", "endpoint"),
                       ("tls-creds-anon,id=a,priority=NONSENSE", "NONSENSE")):
        text = refusal("-object", spec)
        assert part in text, (spec, text)
    assert "already" in refusal("-object", "secret,id=a,data=x", "-object", "secret,id=a,data=y")


def test_help_lists_the_types():
    for program in (context.minivm(), context.minivm_img()):
        option = "-object" if program == context.minivm() else "--object"
        text = subprocess.run([program, option, "help"], capture_output=True, text=True, check=True).stdout
        for name in ("secret", "tls-creds-x509", "tls-creds-psk", "tls-creds-anon"):
            assert f"\n  {name} " in text, text


def test_objects_come_and_go_while_the_machine_runs():
    with tempfile.TemporaryDirectory() as name:
        keys = pathlib.Path(name) / "keys.psk"
        keys.write_text("qemu:00112233445566778899aabbccddeeff\n")
        with vm.Vm(context.minivm(), ["-accel", "soft", "-S", "-object", "secret,id=s,data=x"], serial=False) as m:
            m.qmp.command("object-add", qom_type="tls-creds-psk", id="t0", dir=name, endpoint="client")
            for arguments, part in (({"qom-type": "tls-creds-psk", "id": "t0", "dir": name}, "already"),
                                    ({"qom-type": "tls-creds-psk", "id": "t1", "dir": name, "verify-peer": 7}, "verify-peer"),
                                    ({"qom-type": "nonsense", "id": "t1"}, "unknown object type"),
                                    ({"qom-type": "secret"}, "'id' is missing"),
                                    ({"id": "t1"}, "'qom-type' is missing")):
                reply = m.qmp.raw({"execute": "object-add", "arguments": arguments})
                assert part in reply["error"]["desc"], reply
            m.qmp.command("object-del", id="t0")
            reply = m.qmp.raw({"execute": "object-del", "arguments": {"id": "t0"}})
            assert "no object" in reply["error"]["desc"], reply
            assert m.hmp(f"object_add tls-creds-psk,id=t0,dir={name}") == ""
            assert "already" in m.hmp(f"object_add tls-creds-psk,id=t0,dir={name}")
            assert m.hmp("object_del t0") == "" and m.hmp("object_del s") == ""
            assert "no object" in m.hmp("object_del s")
