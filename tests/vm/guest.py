"""A guest: a kernel in QEMU, on this machine's files, that runs one command as root and ends.

The files are those below /, read-only; what the guest writes is in its memory and gone with it. One of another machine
has that machine's programs above them. Everything is emulated: KVM would be faster, and is not there in many machines
that are guests themselves. Computing takes about 16 times as long as outside, starting a program 60 times.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster.binaries import cache
from tests.vm.kernels import Kernel
from tests.vm.userland import find_userland

HERE = Path(__file__).parent
BUSYBOX = Path("/bin/busybox")
#: Debian 12 has it with QEMU, later ones in a package of its own.
VIRTIOFSD = (Path("/usr/lib/qemu/virtiofsd"), Path("/usr/libexec/virtiofsd"))
MEMORY = "1G"  # of which a guest takes a third
CPUS = 2
#: A machine.
QEMU = {
    # starting a program takes half as long as with the processor that QEMU would choose
    "amd64": ["qemu-system-x86_64", "-machine", "q35", "-cpu", "Nehalem"],
    "arm64": ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"],
}
#: Where the kernel's messages, the command's output and its status go.
CONSOLES = {"amd64": ("ttyS0", "ttyS1", "ttyS2"), "arm64": ("ttyAMA0", "ttyS0", "ttyS1")}
#: A child ends with this process, however that ends.
CHILD = ("setpriv", "--pdeathsig=KILL", "nice", "-n", "10")


class GuestError(Exception):
    """A guest did not come to the end of its command."""


class Crashed(GuestError):
    """The guest ended before its tests did."""


@dataclass(frozen=True)
class Done:
    """What a command printed, its exit status, and how long the guest was there, in seconds."""

    output: str
    status: int
    seconds: float


def run(kernel: Kernel, command: str, seconds: float) -> Done:
    """Run a shell command on a kernel. GuestError if the guest or the command does not end within seconds."""
    began = time.monotonic()
    with ExitStack() as stack:
        # the guest sees it too; not below /tmp or /run, where that may be another file system
        job = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guest-", dir=cache())))
        (job / "command").write_text(command)
        (job / "initramfs").write_bytes(_initramfs(kernel, job))
        for name, folder in _shared(kernel).items():
            _share(job, stack, name, folder)
        with (job / "errors").open("wb") as errors:
            guest = subprocess.Popen(_qemu(kernel, job), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        stack.callback(_end, guest)
        try:
            guest.wait(seconds)
        except subprocess.TimeoutExpired:
            raise GuestError(f"not done within {seconds:.0f} s\n{_last_words(job)}") from None
        status = (job / "status").read_text().split()
        if status[:1] != ["status"]:
            raise Crashed(f"it told no status\n{_last_words(job)}")
        return Done((job / "output").read_text(errors="replace"), int(status[1]), time.monotonic() - began)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _last_words(job: Path, *names: str) -> str:
    """The ends of what QEMU, the kernel and the command said, or of other files."""
    files = [job / name for name in names or ("errors", "console", "output")]
    texts = [path.read_text(errors="replace").splitlines()[-40:] for path in files if path.exists()]
    return "\n".join(line for text in texts for line in text)


def _initramfs(kernel: Kernel, job: Path) -> bytes:
    """busybox, init.sh, and the modules in the order in which they are loaded."""
    root = job / "root"
    for folder in ("bin", "dev", "proc", "sys", "modules", "lower", "over", "layer", "root"):
        (root / folder).mkdir(parents=True)
    shutil.copy(BUSYBOX if kernel.arch == "amd64" else find_userland() / "usr/bin/busybox", root / "bin/busybox")
    shutil.copy(HERE / "init.sh", root / "init")
    (root / "init").chmod(0o755)
    shutil.copy(HERE / "run.sh", root / "run.sh")
    for number, (name, data) in enumerate(kernel.needed_modules()):
        (root / "modules" / f"{number:02}-{name}").write_bytes(data)
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    pack = [str(BUSYBOX), "cpio", "-o", "-H", "newc"]
    done = subprocess.run(pack, cwd=root, input=names.encode(), capture_output=True, check=True)
    shutil.rmtree(root)
    return done.stdout


def _shared(kernel: Kernel) -> dict[str, Path]:
    """The folders of this machine that a guest has, by their names there."""
    return {"root": Path("/")} | ({} if kernel.arch == "amd64" else {"over": find_userland()})


def _share(job: Path, stack: ExitStack, name: str, folder: Path) -> None:
    """Serve a folder of this machine to the guest."""
    server = next((path for path in VIRTIOFSD if path.exists()), None)
    if server is None:
        raise GuestError("no virtiofsd: Debian 12 has it in qemu-system-common, later ones in virtiofsd")
    words = [f"--socket-path={job}/{name}"]
    if server.parent.name == "qemu":
        words += ["-o", f"source={folder}", "-o", "cache=auto", "-o", "sandbox=chroot", "--thread-pool-size=0"]
    else:
        words += [f"--shared-dir={folder}", "--cache=auto", "--sandbox=chroot", "--inode-file-handles=never"]
    with (job / f"virtiofsd-{name}").open("wb") as log:
        process = subprocess.Popen([*CHILD, server, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(_end, process)
    _wait_until((job / name).exists, lambda: f"virtiofsd does not start\n{_last_words(job, f'virtiofsd-{name}')}")


def _wait_until(condition: Callable[[], bool], why: Callable[[], str], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise GuestError(why())
        time.sleep(0.01)


def _qemu(kernel: Kernel, job: Path) -> list[str]:
    console, output, status = CONSOLES[kernel.arch]
    words = [f"console={console}", "panic=-1", "oops=panic", "loglevel=4", "mitigations=off", "nokaslr"]
    words += ["random.trust_cpu=on", f"job={job}", f"output={output}", f"status={status}"]
    words.append("no_timer_check")  # while this machine is busy the guest's clock looks broken, and it would panic
    shared = _shared(kernel)
    words.append(f"shared={','.join(shared)}")
    files = [f"socket,id={name},path={job}/{name}" for name in shared]
    files += [f"file,id={name},path={job}/{name}" for name in ("console", "output", "status")]
    devices = [f"vhost-user-fs-pci,chardev={name},tag={name}" for name in shared]
    serial = ["-serial", "chardev:console"]
    if kernel.arch == "amd64":
        serial += ["-serial", "chardev:output", "-serial", "chardev:status"]
    else:  # has but one
        devices.append("pci-serial-2x,chardev1=output,chardev2=status")
    return [
        *CHILD, *QEMU[kernel.arch], "-accel", "tcg,thread=multi",
        "-smp", str(CPUS), "-m", MEMORY, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on", "-numa", "node,memdev=memory",
        *(word for file in files for word in ("-chardev", file)),
        *(word for device in [*devices, "virtio-rng-pci"] for word in ("-device", device)), *serial,
        "-kernel", str(kernel.image), "-initrd", f"{job}/initramfs", "-append", " ".join(words),
    ]  # fmt: skip
