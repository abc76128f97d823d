"""Falco's own stable rules, as they are, are fired by real programs in a real container."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gadget.rules.ruleset import load
from tests.breaks import ADDRESSES, SCRIPT, type_in
from tests.conftest import Agent, Cli, events, wait_until
from tests.kernel.test_default_rules import as_cri, overlay
from tests.pods import Container, Pod
from tests.unit.rules.test_facts import DATA, STOCK, stock

NAMESPACE = "stock-rules"
#: What fires each, and the command that the alert has.
FIRES = {
    "Directory traversal monitored file read": "app 'cat /etc/../etc/../etc/hostname; true'",
    "Read sensitive file trusted after startup": "/usr/bin/httpd 'sleep 6; read line < /etc/shadow'",
    "Read sensitive file untrusted": "cat /etc/shadow",
    "Run shell untrusted": "/usr/bin/httpd 'sh -c \"ls > /dev/null\"; true'",
    "Contact K8S API Server From Container":
        "breaks resolve kubernetes.default.svc.cluster.local 10.1.2.4; breaks connect 10.1.2.4 443",
    "Netcat Remote Code Execution in Container": "nc 127.0.0.1 9 -e /bin/true",
    "Search Private Keys or Passwords": "/usr/bin/find /tmp -iname id_rsa",
    "Clear Log Activities": "echo x > /var/log/app.log",
    "Remove Bulk Data from Disk": "/usr/bin/shred -u /opt/old",
    "Create Symlink Over Sensitive Files": "ln -s /etc /tmp/etc",
    "Create Hardlink Over Sensitive Files": "ln /etc/shadow /opt/shadow",
    "Packet socket created in container": "/bin/arping -c 1 -w 1 -I lo 127.0.0.1",
    "Redirect STDOUT/STDIN to Network Connection in Container": "breaks connect 10.1.2.3 9000 0",
    "Debugfs Launched in Privileged Container": "/usr/bin/debugfs -V",
    "Detect release_agent File Container Escapes": "echo x > /tmp/release_agent",
    "PTRACE attached to process": "breaks trace attach",
    "PTRACE anti-debug attempt": "breaks trace me",
    "Find AWS Credentials": "/usr/bin/find /tmp -iname .aws/credentials",
    "Execution from /dev/shm": "cp /bin/busybox /dev/shm/true; sh -c /dev/shm/true",
    "Drop and execute new binary in container": "cp /bin/busybox /opt/new; /opt/new true",
    "Disallowed SSH Connection Non Standard Port": "ssh connect 203.0.113.7 443",
    "Fileless execution via memfd_create": "breaks memory; true",
}  # fmt: skip
#: By a person at a terminal, and by a system's user who logs in.
BY_HAND = {"Terminal shell in container", "System user interactive"}
#: A test does not load a module into the kernel of the machine.
NOT_TRIED = {"Linux Kernel Module Injection Detected"}
#: Programs whose names alone matter.
NAMES = ("/usr/bin/debugfs", "/usr/bin/find", "/usr/bin/shred")
BENIGN = "cat /etc/hostname; ls /etc; head /etc/passwd; echo x >> /var/log/app.log; ln -s /opt/a /opt/b; sh -c true; breaks connect 10.1.2.3 443"


def privileged(config: dict[str, Any]) -> None:
    """What containerd writes for a privileged container."""
    as_cri(config)
    config["linux"].update(maskedPaths=[], readonlyPaths=[])
    for mount in config["mounts"]:
        if mount["destination"] == "/sys":
            mount["options"] = ["nosuid", "noexec", "nodev", "rw"]


def test_stable_rules(
    start_agent: Callable[..., Agent], start_cli: Callable[..., Cli], make_pod: Callable[..., Pod],
    workload: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    """Each of Falco's stable rules fires on what it is about, in the container that did it, and none on usual work."""
    path, out = DATA / f"{STOCK[0]}.yaml", tmp_path / "alerts"
    stock()
    assert FIRES.keys() | BY_HAND | NOT_TRIED == {rule.name for rule in load([(path.name, path.read_text())]).rules}
    with out.open("w") as file, ExitStack() as stack:
        options = ("-n", NAMESPACE, "-o", "json", "--rules", str(path))
        cli = start_cli("detect", "--agent", start_agent().address, *options, stdout=file)

        def rules(pod: str) -> set[str]:
            whole = out.read_text().rpartition("\n")[0]
            return {each["rule"] for each in events(whole) if each["output_fields"]["k8s.pod.name"] == pod}

        def prepared(pod: str) -> Container:
            container = make_pod(NAMESPACE, pod).prepare("app", "/bin/sleep", "600", change=privileged)
            image = container.bundle / "image"
            for name in ("/usr/bin/httpd", "/usr/bin/app", *NAMES):
                (image / name[1:]).parent.mkdir(parents=True, exist_ok=True)
                (image / name[1:]).write_text(SCRIPT if name not in NAMES else "#!/bin/sh\n")
                (image / name[1:]).chmod(0o755)
            (image / "bin").mkdir()
            (image / "bin/ssh").write_bytes(workload("breaks").read_bytes())
            (image / "bin/ssh").chmod(0o755)
            for name in ("arping", "login"):
                (image / "bin" / name).symlink_to("busybox")
            stack.enter_context(overlay(container, workload("breaks")))
            with (container.bundle / "root/etc/passwd").open("a") as passwd:
                passwd.write("daemon:x:1:1:daemon:/:/bin/sh\n")
            container.start()
            addresses = "".join(f"ip addr add {address} dev lo; " for address in ADDRESSES)
            run(container, f"ip link set lo up; {addresses}")
            return container

        def run(container: Container, script: str) -> None:
            command = ["runc", "exec", container.id, "/bin/sh", "-c", f". /tools\n{script}"]
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL)

        beacon = make_pod(NAMESPACE, "beacon").container(
            "app", "/bin/sleep", "600", files={"/etc/shadow": Path("/etc/hostname")}
        )

        def is_judged() -> bool:
            beacon.exec("/bin/cat", "/etc/shadow")
            return bool(rules("beacon"))

        def is_told() -> bool:
            beacon.exec("/bin/busybox", "ln", "/etc/shadow", f"/etc/{time.monotonic_ns()}")
            return "Create Hardlink Over Sensitive Files" in rules("beacon")

        wait_until(is_judged, "the begin", 60)
        cart, calm = prepared("cart-0"), prepared("calm")
        run(calm, BENIGN)
        run(cart, "\n".join(FIRES.values()))
        subprocess.run(["runc", "exec", "--user", "1:1", cart.id, "/bin/login"], check=False, stdin=subprocess.DEVNULL)
        type_in("runc", "exec", "--tty", cart.id, "/bin/sh")
        wait_until(is_told, "the end", 60)
        assert rules("cart-0") == FIRES.keys() | BY_HAND
        assert not rules("calm")
        _, err = cli.finish()
        assert "nothing lost" in err, err
