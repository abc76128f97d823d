"""The processes of a cluster, started from inside its namespaces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

BRIDGE = "192.168.77.1"
NODES = {"node-a": "192.168.77.11", "node-b": "192.168.77.12", "node-c": "192.168.77.13"}
#: The last one joins, and breaks, when a test says so.
*FIRST, LATER = NODES
SERVICES = "10.96.0.0/16"
HERE = Path(__file__).parent
START_SECONDS = 90.0
PORT, ETCD_PORT = 6443, 2379


def pod_range(node: str) -> str:
    """The addresses of a node's pods."""
    return f"10.244.{list(NODES).index(node)}.0/24"


def run(*command: str | Path) -> str:
    """Run a command, and give what it prints."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _processes_of(node: str) -> set[int]:
    """Those of its own, which are in its network, and those of its pods."""
    pids = {int(pid) for pid in run("ip", "netns", "pids", node).split()}
    for procs in Path("/sys/fs/cgroup").glob(f"**/gadget-e2e/{node}/**/cgroup.procs"):
        with suppress(OSError):  # the cgroup of a pod that has just ended
            pids |= {int(pid) for pid in procs.read_text().split()}
    return pids


def etcd(data: Path, port: int) -> list[str]:
    """The command of an etcd whose clients find it at a port, and others of its kind at the next."""
    clients, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    return [
        "etcd", "--name=e2e", f"--data-dir={data}", f"--initial-cluster=e2e={peers}", f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}", f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
    ]  # fmt: skip


def api_server(binaries: Path, pki: Path, port: int, etcd_port: int) -> list[str]:
    """The command of a kube-apiserver at a port, with the keys of pki."""
    return [
        f"{binaries}/kube-apiserver", f"--advertise-address={BRIDGE}", f"--secure-port={port}",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}", "--authorization-mode=Node,RBAC", "--allow-privileged",
        "--enable-admission-plugins=NodeRestriction", f"--service-cluster-ip-range={SERVICES}",
        "--kubelet-preferred-address-types=InternalIP", f"--token-auth-file={pki}/tokens.csv",
        f"--client-ca-file={pki}/ca.crt", f"--requestheader-client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key", "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
    ]  # fmt: skip


class ControlPlane:
    """Starts everything. To end it is for the namespace's end."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        """Run binaries with files in folder."""
        self._folder, self._binaries = folder, binaries
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "logs").mkdir()

    def start(self) -> None:
        """Bring up the whole cluster. RuntimeError, with the end of a log, if a part of it does not come up."""
        self._make_network()
        keys = subprocess.run([HERE / "pki.sh", *NODES], cwd=self._folder, capture_output=True, text=True, check=False)
        if keys.returncode:
            raise RuntimeError(keys.stderr)
        self._start_servers()
        for node in FIRST:
            self._start_node(node)
        for node in FIRST:
            self._wait(node, lambda node=node: self._is_ready(node), f"{node}-kubelet")
        self._wait("default service account", lambda: bool(self.kubectl("get", "serviceaccount", "default")))

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints; empty if it fails."""
        command = [self._binaries / "kubectl", "--kubeconfig", self._folder / "admin.kubeconfig", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def add_node(self) -> None:
        """Have the last node join."""
        self._start_node(LATER)

    def remove_node(self) -> None:
        """End the last node, as a machine that breaks, and have the cluster forget it."""
        deadline = time.monotonic() + START_SECONDS
        while (pids := _processes_of(LATER)) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self.kubectl("delete", "node", LATER)
        of_node = f"--field-selector=spec.nodeName={LATER}"
        self.kubectl("delete", "pods", "--all-namespaces", of_node, "--force", "--grace-period=0")
        run("ip", "netns", "delete", LATER)  # and with it its link
        run("ip", "route", "delete", pod_range(LATER))
        shutil.rmtree(self._folder / LATER)

    def _make_network(self) -> None:
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "nodes", "type", "bridge")
        run("ip", "address", "add", f"{BRIDGE}/24", "dev", "nodes")
        run("ip", "link", "set", "nodes", "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        # the kube-proxy of the first node does it for this machine
        run("ip", "route", "add", SERVICES, "via", NODES[FIRST[0]])

    def _start_node(self, node: str) -> None:
        address = NODES[node]
        run("ip", "netns", "add", node)
        run("ip", "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", node)
        run("ip", "link", "set", node, "master", "nodes", "up")
        run("ip", "-n", node, "link", "set", "lo", "up")
        run("ip", "-n", node, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", node, "link", "set", "eth0", "up")
        run("ip", "-n", node, "route", "add", "default", "via", BRIDGE)
        run("ip", "route", "add", pod_range(node), "via", address)
        run("nsenter", f"--net=/run/netns/{node}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._start(
            node, "nsenter", f"--net=/run/netns/{node}", "unshare", "--mount", "--propagation", "private",
            HERE / "node.sh", node, address, pod_range(node), self._binaries, self._folder,
        )  # fmt: skip

    def _start(self, name: str, *command: str | Path) -> None:
        with (self._folder / "logs" / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _start_servers(self) -> None:
        self._start("etcd", *etcd(Path("/run/etcd"), ETCD_PORT))
        self.start_api_server()

    def start_api_server(self) -> None:
        """Start kube-apiserver and those that work through it, which may not have survived its absence."""
        pki = self._folder
        self._run_api_server()
        self._wait("kube-apiserver", lambda: self.kubectl("get", "--raw", "/readyz") == "ok")
        for name in ("kube-controller-manager", "kube-scheduler"):
            if before := self._processes.get(name):
                before.kill()
                before.wait()
            config = f"{pki}/{name}.kubeconfig"
            self._start(
                name, self._binaries / name, "--bind-address=127.0.0.1", "--leader-elect=false", f"--kubeconfig={config}",
                f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
                *([f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/service-accounts.key",
                   "--use-service-account-credentials"] if name == "kube-controller-manager" else []),
            )  # fmt: skip

    def stop_api_server(self) -> None:
        """End kube-apiserver, as a crash would."""
        server = self._processes["kube-apiserver"]
        server.kill()
        server.wait()

    def _run_api_server(self) -> None:
        pki, audit = self._folder, self._folder / "audit"  # that a test may fill before it has this started again
        self._start(
            "kube-apiserver", *api_server(self._binaries, pki, PORT, ETCD_PORT),
            *([f"--audit-webhook-config-file={audit}/audit-webhook.yaml",
               f"--audit-policy-file={audit}/audit-policy.yaml", "--audit-webhook-batch-max-wait=1s"]
              if audit.exists() else []),
        )  # fmt: skip

    def _is_ready(self, node: str) -> bool:
        shown = self.kubectl("get", "node", node, "--output=json")
        conditions = json.loads(shown)["status"].get("conditions", []) if shown else []
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def _wait(self, name: str, condition: Callable[[], bool], log: str = "") -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if name in self._processes and self._processes[name].poll():
                raise RuntimeError(f"{name} ended\n{self._tail(name)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name}: not ready after {START_SECONDS:.0f} s\n{self._tail(log or name)}")
            time.sleep(0.1)

    def _tail(self, log: str) -> str:
        path = self._folder / "logs" / f"{log}.log"
        return "\n".join(path.read_text().splitlines()[-20:]) if path.exists() else ""
