"""Runs the corpus: each case in a container of its own, recorded by one agent.

python -m tests.why.run [--save FOLDER] [--show] [CASE…]

FOLDER gets NAME.pb, the agent's answers about a case, each behind its length in 4 bytes, and index.json. Read them
with load().
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, wait_until
from tests.leftovers import own_mounts
from tests.pods import UNIFIED, Container, Pod
from tests.why.case import Case, Content
from tests.why.cases import CASES

#: What containerd lets a container do.
CAPABILITIES = [f"CAP_{name}" for name in (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)]  # fmt: skip
NAMESPACE = "why"
#: Cases at a time: most of their time is the runtime's, which the cores bound; those that hang only sleep.
AT_ONCE, HANGING_AT_ONCE = 5, 12
#: What the corpus needs of the machine beside a shell.
NEEDED = ("runc", "gcc", "g++", "openssl", "unshare", "/usr/bin/python3", "/usr/bin/node", "/usr/bin/java", "javac")
GO = shutil.which("go") or "/usr/local/go/bin/go"
#: What of the machine a container with usr sees.
SHARED = ("/usr", "/etc/alternatives", "/etc/java-17-openjdk", "/etc/ld.so.cache", "/etc/ssl")


@dataclass
class Result:
    """What became of a case."""

    case: Case
    replies: list[pb.TraceloopReadReply]
    output: str = ""
    error: str = ""  # what the runtime said that could not start it
    seconds: float = 0.0

    @property
    def item(self) -> pb.TraceloopItem:
        """How it ended."""
        return self.replies[-1].item

    @property
    def ended(self) -> str:
        """How it ended, in the words of Case.exits."""
        if not self.replies:
            return "?"
        if self.item.running:
            return "None"
        return str(-(self.item.status & 0x7F) or self.item.status >> 8)

    @property
    def as_meant(self) -> bool:
        """Whether it did what its case is about."""
        return bool(self.replies) and (not self.error or not self.case.starts) and self.ended == str(self.case.exits)


def save(folder: Path, results: Iterable[Result]) -> None:
    """Keep results in files; those of other cases that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "index.json"
    index = json.loads(place.read_text()) if place.exists() else {}
    for result in results:
        case = result.case
        messages = [reply.SerializeToString() for reply in result.replies]
        (folder / f"{case.name}.pb").write_bytes(b"".join(struct.pack("<I", len(each)) + each for each in messages))
        index[case.name] = {
            "list": str(case.kind), "language": case.language, "causes": list(case.causes), "says": case.says,
            "call": case.call, "exits": case.exits, "ended": result.ended, "as_meant": result.as_meant,
            "command": list(case.command), "output": result.output[-2000:], "error": result.error[-500:],
        }  # fmt: skip
    place.write_text(json.dumps({name: index[name] for name in sorted(index)}, indent=1))


def load(path: Path) -> list[pb.TraceloopReadReply]:
    """The replies in a file of save()."""
    data, replies = path.read_bytes(), []
    while data:
        (size,) = struct.unpack_from("<I", data)
        replies.append(pb.TraceloopReadReply.FromString(data[4 : 4 + size]))
        data = data[4 + size :]
    return replies


def missing() -> list[str]:
    """What the machine lacks."""
    found = [name for name in NEEDED if not shutil.which(name)]
    return found if Path(GO).exists() else [*found, "go"]


class Builder:
    """Compiles the programs of cases, those of a language together."""

    def __init__(self, folder: Path) -> None:
        """Put them into a folder."""
        self.folder = folder

    def build(self, cases: Sequence[Case]) -> None:
        """Compile what has to be."""
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(self._go, [case for case in cases if case.language == "go"])]
            done.append(pool.submit(self._java, [case for case in cases if case.language == "java"]))
            done += [pool.submit(self._c, case) for case in cases if case.language in ("c", "c++")]
            for each in done:
                each.result()

    def _c(self, case: Case) -> None:
        folder = self.folder / case.name
        folder.mkdir()
        suffix, compiler = ("cc", "g++") if case.language == "c++" else ("c", "gcc")
        (folder / f"main.{suffix}").write_text(case.source)
        static = () if case.usr or case.dynamic else ("-static",)
        for library in case.libraries:
            for name, source in ((library, "int cart_total(void) { return 0; }"), (f"{library}.empty", "")):
                shared = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-xc", "-o", name, "-"]
                subprocess.run(shared, cwd=folder, input=source, text=True, check=True)
        linked = ("-Wl,--no-as-needed", *case.libraries) if case.libraries else ()
        command = [compiler, "-O1", "-w", *static, "-pthread", "-o", "program", f"main.{suffix}", *linked, *case.flags]
        subprocess.run(command, cwd=folder, check=True)

    def _go(self, cases: Sequence[Case]) -> None:
        if not cases:
            return
        folder = self.folder / "go"
        folder.mkdir()
        (folder / "go.mod").write_text("module shop\n\ngo 1.21\n")
        for case in cases:
            (folder / case.name).mkdir()
            (folder / case.name / "main.go").write_text(case.source)
        env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
        subprocess.run([GO, "build", "-ldflags=-s -w", "-o", "out/", "./..."], cwd=folder, env=env, check=True)
        for case in cases:
            (self.folder / case.name).mkdir()
            shutil.move(folder / "out" / case.name, self.folder / case.name / "program")

    def _java(self, cases: Sequence[Case]) -> None:
        sources = []
        for case in cases:
            folder = self.folder / case.name
            folder.mkdir()
            (folder / "Main.java").write_text(case.source)
            sources.append(folder / "Main.java")
        if sources:
            compiler = self.folder / "Compile.java"
            compiler.write_text(COMPILE)
            subprocess.run(["/usr/bin/java", compiler, *sources], check=True)

    def install(self, case: Case, root: Path) -> None:
        """Put a case's program and files into a container's root."""
        app = root / "app"
        app.mkdir()
        made = self.folder / case.name
        if case.language == "java":
            for each in made.glob("*.class"):
                shutil.copy(each, app)
        elif made.is_dir():
            shutil.copy(made / "program", app / "server")
            for library in case.libraries if case.installed else ():
                shutil.copy(made / f"{library}.empty", app / library)
        for path, content in case.files.items():
            put(root, path, content)


#: javac for each file by itself, in one process: their classes have the same names.
COMPILE = """
import java.nio.file.Path;
import javax.tools.ToolProvider;
public class Compile {
    public static void main(String[] files) {
        for (String file : files) {
            int code = ToolProvider.getSystemJavaCompiler().run(null, null, null,
                "-nowarn", "-proc:none", "-d", Path.of(file).getParent().toString(), file);
            if (code != 0) System.exit(code);
        }
    }
}
"""


def put(root: Path, path: str, content: Content) -> None:
    """Write a file of a container, or make a folder if its path ends with a slash."""
    content, mode = content if isinstance(content, tuple) else (content, 0)
    target = root / path.lstrip("/")
    if path.endswith("/"):
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode or 0o755)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    data = (
        content.read_bytes() if isinstance(content, Path) else content.encode() if isinstance(content, str) else content
    )
    target.write_bytes(data)
    target.chmod(mode or (0o755 if "bin" in target.parts[-3:] or data[:2] == b"#!" else 0o644))


class Live:
    """A container of a case while it runs: what acts may do to it."""

    def __init__(self, container: Container) -> None:
        """Nothing runs yet."""
        self.container, self._output, self._lock = container, b"", threading.Lock()
        self._readers: list[threading.Thread] = []

    def start(self) -> str:
        """Run it with pipes for its output, as the kubelet's runtimes do; what the runtime says if it cannot."""
        command = self.container.command
        pipes = [os.pipe() for _ in range(2)]
        with tempfile.NamedTemporaryFile() as log:
            command[1:1] = ["--log", log.name]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=pipes[0][1], stderr=pipes[1][1], check=False
            )
            said = Path(log.name).read_text()
        for reader, writer in pipes:
            os.close(writer)
            self._readers.append(threading.Thread(target=self._read, args=(reader,), daemon=True))
            self._readers[-1].start()
        return f"exit {done.returncode}: {said}" if done.returncode else ""

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as stream:
            while data := stream.read(65536):
                with self._lock:
                    self._output = (self._output + data)[-100_000:]

    def output(self, seconds: float = 0.2) -> str:
        """What it printed."""
        for reader in self._readers:
            reader.join(seconds)
        return self._output.decode(errors="replace")

    def says(self, text: str) -> None:
        wait_until(lambda: text.encode() in self._output, f"{text!r} of {self.container.pod.name}")

    def signal(self, name: str) -> None:
        subprocess.run(["runc", "kill", self.container.id, name], check=True, capture_output=True)

    def exec(self, *args: str) -> None:
        command = ["runc", "exec", self.container.id, *args]
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)

    def beside(self, script: str) -> None:
        inside = f"/proc/{self.container.pid}/ns/pid"
        sidecar = self.container.pod.prepare(
            "sidecar", "/bin/sh", "-c", script, change=lambda config: join(config, pid=inside)
        )
        link_applets(sidecar.bundle / "rootfs")
        sidecar.start()
        sidecar.wait()

    def ends(self, seconds: float) -> bool:
        events, deadline = UNIFIED / self.container.cgroup.lstrip("/") / "cgroup.events", time.monotonic() + seconds
        while "populated 1" in events.read_text():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def join(config: dict[str, Any], **paths: str) -> None:
    """Have a container join namespaces that are there."""
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] in paths:
            namespace["path"] = paths[namespace["type"]]


def link_applets(root: Path) -> None:
    """Give a container all that busybox can."""
    for name in APPLETS:
        place = root / "bin" / name
        if not place.is_symlink() and name != "busybox":
            place.symlink_to("busybox")


APPLETS = (
    subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    if shutil.which("busybox")
    else []
)


@dataclass
class Lab:
    """Where cases run: an agent, servers, programs."""

    folder: Path
    agent: Agent
    channel: grpc.Channel
    builder: Builder
    network: str
    stub: Any = field(init=False)
    #: rings stand ready for 16 containers at a time
    starting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))

    def __post_init__(self) -> None:
        self.stub = AgentStub(self.channel)

    def _change(self, case: Case, config: dict[str, Any], pause: Container | None) -> None:
        process, linux = config["process"], config["linux"]
        process["env"] += [f"HOSTNAME={case.name}", "KUBERNETES_SERVICE_HOST=10.96.0.1", *case.env]
        process["user"] = {"uid": case.user, "gid": case.user}
        kept = [name for name in CAPABILITIES if name.removeprefix("CAP_") not in case.drop]
        process["capabilities"] = {"bounding": kept, "effective": kept, "permitted": kept}
        process["noNewPrivileges"] = False
        process["rlimits"] = [
            {"type": f"RLIMIT_{name}", "soft": limit, "hard": limit} for name, limit in case.rlimits.items()
        ]
        config["root"]["readonly"] = case.readonly
        if case.pids:
            linux.setdefault("resources", {})["pids"] = {"limit": case.pids}
        if case.seccomp:
            linux["seccomp"] = {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": [name], "action": action, **({"errnoRet": 1} if action == "SCMP_ACT_ERRNO" else {})}
                             for name, action in case.seccomp.items()],
            }  # fmt: skip
        for place, options in case.tmpfs.items():
            mount = {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options.split(",")}
            config["mounts"].append(mount)
        if case.usr:
            for place in SHARED:
                if Path(place).exists():
                    options = ["rbind", "ro", "nosuid", "nodev"]
                    config["mounts"].append({"destination": place, "type": "bind", "source": place, "options": options})
        if case.peers:
            join(config, network=self.network)
        if pause:
            join(config, pid=f"/proc/{pause.pid}/ns/pid")

    def run_all(self, cases: Sequence[Case], say: Callable[[Result], object] = lambda result: None) -> list[Result]:
        """Run cases, several at once; their results in the order of the cases."""
        quick = [case for case in cases if case.exits is not None]
        slow = [case for case in cases if case.exits is None]

        def one(case: Case) -> Result:
            try:
                result = self.run(case)
            except Exception as error:  # the others are to run
                result = Result(case, [], error=f"{type(error).__name__}: {error}")
            say(result)
            return result

        with ThreadPoolExecutor(HANGING_AT_ONCE) as hanging, ThreadPoolExecutor(AT_ONCE) as pool:
            waiting = [*(pool.submit(one, case) for case in quick), *(hanging.submit(one, case) for case in slow)]
            found = {result.case.name: result for result in (each.result() for each in waiting)}
        return [found[case.name] for case in cases]

    def run(self, case: Case) -> Result:
        """Run a case to its end, or for as long as it should hang, and read its recording."""
        began = time.monotonic()
        with Pod(self.folder, NAMESPACE, case.name) as pod:
            pause = pod.container("pause", "/bin/sleep", "60", kind="sandbox") if case.shared_pids else None
            container = pod.prepare(
                "app", *case.command, memory=case.memory, change=lambda config: self._change(case, config, pause)
            )
            root = container.bundle / "rootfs"
            link_applets(root)
            if case.usr:
                (root / "lib").symlink_to("usr/lib")
                (root / "lib64").symlink_to("usr/lib64")
            self.builder.install(case, root)
            live = Live(container)
            with self.starting:
                error = live.start()
            replies: list[pb.TraceloopReadReply] = []
            if not error:
                if case.act:
                    case.act(live)
                if case.exits is None:
                    time.sleep(case.runs)
                    replies = self._read(self._cgroup_id(container))
                else:
                    assert live.ends(30), "it still runs"
            # what is gone at once when a runtime fails: by its name alone
            cgroup = self._cgroup_id(container) if not error else self._find(container.id)
            output = live.output(0.0 if replies else 2.0)
            container.delete()
            if not replies:
                replies = wait_until(lambda: self._read_ended(cgroup), f"the recording of {case.name}")
            return Result(case, replies, output, error, time.monotonic() - began)

    def _cgroup_id(self, container: Container) -> int:
        return (UNIFIED / container.cgroup.lstrip("/")).stat().st_ino

    def _find(self, id: str) -> int:
        def found() -> int:
            items = self.stub.TraceloopList(pb.TraceloopListRequest()).items
            return next((item.container.cgroup_id for item in items if item.container.id == id), 0)

        return int(wait_until(found, f"the recording of {id[:12]}"))

    def _read_ended(self, cgroup_id: int) -> list[pb.TraceloopReadReply]:
        """The recording of a container that has ended; none until the agent has heard of both."""
        try:
            replies = self._read(cgroup_id)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                return []
            raise
        return [] if replies[-1].item.running else replies

    def _read(self, cgroup_id: int) -> list[pb.TraceloopReadReply]:
        return list(self.stub.TraceloopRead(pb.TraceloopReadRequest(cgroup_id=cgroup_id)))


@contextmanager
def lab(folder: Path, cases: Sequence[Case]) -> Iterator[Lab]:
    """An agent that records, servers, and all programs; they are gone in the end."""
    if lacking := missing():
        raise RuntimeError(f"the corpus needs {', '.join(lacking)}")
    with ExitStack() as stack:
        programs = folder / "programs"
        programs.mkdir()
        builder = Builder(programs)
        builder.build(cases)
        certificates = folder / "certificates"
        certificates.mkdir()
        peers = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", "tests.why.peers", str(certificates)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(peers.wait)
        stack.callback(peers.kill)
        bpffs = folder / "bpf"
        bpffs.mkdir()
        stack.callback(subprocess.run, ["umount", str(bpffs)], check=False)
        stack.callback(shutil.rmtree, bpffs / "gadget", ignore_errors=True)
        agent = Agent(
            folder, "--no-flows", "--traceloop-memory", "256", "--bpffs", str(bpffs), "--state", str(folder / "state")
        )
        stack.callback(agent.stop)
        assert peers.stdout and peers.stdout.readline() == "ready\n"
        yield Lab(folder, agent, stack.enter_context(connect(agent.address)), builder, f"/proc/{peers.pid}/ns/net")


def main() -> None:
    """Run cases from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--show", action="store_true", help="what each printed")
    parser.add_argument("names", nargs="*", help="cases, by the beginning of their names")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.names or any(re.match(name, case.name) for name in options.names)]
    own_mounts()
    began = time.monotonic()

    def say(result: Result) -> None:
        mark = "" if result.as_meant else "   <-- not as meant"
        print(f"{result.case.name:34} {result.ended:>5} {result.seconds:5.1f} s{mark}", flush=True)
        if options.show or mark:
            print(result.output[-1500:], result.error[-500:])
        if options.save:
            with lock:
                save(options.save, [result])

    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="why-") as folder, lab(Path(folder), cases) as where:
        results = where.run_all(cases, say)
    wrong = sum(not result.as_meant for result in results)
    print(f"{len(results)} cases, {wrong} not as meant, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
