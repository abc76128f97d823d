"""Debian's containerd, driven as a kubelet does: through its CRI."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.conftest import wait_until
from tests.images import make_image
from tests.pods import BUSYBOX, remove_cgroups

PAUSE, BUSY = "localhost/pause:test", "localhost/busybox:test"
NODE_NETWORK = 2
#: Where containers' bundles lie; the root and the socket are the test's own.
STATE = Path("/run/containerd")
CONFIG = """
version = 2
root = "{folder}/root"
state = "{state}"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/ttrpc.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
"""


def _stubs(folder: Path) -> tuple[Any, Any]:
    source = Path(__file__).parent / "cri.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{source.parent}", f"--python_out={folder}",
               f"--grpc_python_out={folder}", str(source)]  # fmt: skip
    subprocess.run(command, check=True)
    sys.path.insert(0, str(folder))
    return importlib.import_module("cri_pb2"), importlib.import_module("cri_pb2_grpc")


class Containerd:
    """A running containerd. A context manager that leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        """Start it with its files in folder, and give it two images."""
        if (STATE / "containerd.sock").exists():
            raise RuntimeError(f"a containerd of this machine's own serves at {STATE}: not touching its containers")
        self._before = set(STATE.iterdir()) if STATE.exists() else set()
        self.folder = folder
        self.pb, rpc = _stubs(folder)
        self.pods: list[CriPod] = []
        config = folder / "config.toml"
        config.write_text(CONFIG.format(folder=folder, state=STATE, pause=PAUSE))
        self.log = folder / "containerd.log"
        self.process = subprocess.Popen(
            ["containerd", "--config", config], stdout=self.log.open("w"), stderr=subprocess.STDOUT
        )
        self._channel = grpc.insecure_channel(f"unix://{folder}/containerd.sock")
        self.runtime = rpc.RuntimeServiceStub(self._channel)
        wait_until(self._answers, "containerd")
        self._load_images()

    def __enter__(self) -> Containerd:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.delete()
        self._channel.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        for path in set(STATE.iterdir()) - self._before:
            shutil.rmtree(path, ignore_errors=True)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.runtime.Version(self.pb.VersionRequest(), timeout=1).runtime_name)
        except grpc.RpcError:
            return False

    def _load_images(self) -> None:
        root = self.folder / "rootfs"
        (root / "bin").mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        for applet in ("sh", "true", "sleep", "false"):
            os.symlink("busybox", root / "bin" / applet)
        for name in (PAUSE, BUSY):
            archive = make_image(name, root, self.folder / "image.tar", ["/bin/sleep", "3600"])
            command = [
                "ctr",
                "-a",
                f"{self.folder}/containerd.sock",
                "-n",
                "k8s.io",
                "images",
                "import",
                "--snapshotter=native",
                archive,
            ]
            subprocess.run(command, check=True, capture_output=True)

    def pod(self, namespace: str, name: str) -> CriPod:
        """Run a pod's sandbox."""
        self.pods.append(CriPod(self, namespace, name))
        return self.pods[-1]


class CriPod:
    """A pod: a sandbox, and containers in it."""

    def __init__(self, containerd: Containerd, namespace: str, name: str) -> None:
        """Run its sandbox, in the cgroup that a kubelet gives it."""
        self._pb, self._runtime = containerd.pb, containerd.runtime
        self.uid = str(uuid.uuid4())
        self._cgroup = f"kubepods/besteffort/pod{self.uid}"
        pb = self._pb
        node = pb.NamespaceOption(network=NODE_NETWORK)
        self._config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=self.uid, namespace=namespace),
            log_directory=str(containerd.folder),
            linux=pb.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self._cgroup}",
                security_context=pb.LinuxSandboxSecurityContext(namespace_options=node, privileged=True),
            ),
        )
        self._node = node
        self._id = self._runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=self._config)).pod_sandbox_id

    def run(
        self,
        name: str,
        *command: str,
        attempt: int = 0,
        mounts: Sequence[dict[str, Any]] = (),
        privileged: bool = False,
        capabilities: Sequence[str] = (),
    ) -> str:
        """Create and start a container; attempt counts restarts. Returns its id.

        mounts and the capabilities added are as in the CRI.
        """
        pb = self._pb
        security = pb.LinuxContainerSecurityContext(
            namespace_options=self._node,
            privileged=privileged,
            capabilities=pb.Capability(add_capabilities=capabilities),
        )
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image=BUSY),
            command=command,
            mounts=[pb.Mount(**mount) for mount in mounts],
            log_path=f"{name}-{attempt}.log",
            linux=pb.LinuxContainerConfig(security_context=security),
        )
        request = pb.CreateContainerRequest(pod_sandbox_id=self._id, config=config, sandbox_config=self._config)
        container_id: str = self._runtime.CreateContainer(request).container_id
        self._runtime.StartContainer(pb.ContainerRequest(container_id=container_id))
        return container_id

    def delete(self) -> None:
        """Stop and remove all of it."""
        request = self._pb.PodSandboxRequest(pod_sandbox_id=self._id)
        self._runtime.StopPodSandbox(request)
        self._runtime.RemovePodSandbox(request)
        remove_cgroups(self._cgroup)
