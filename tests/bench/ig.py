"""Inspektor Gadget's ig as a peer, for those who ask for it: it and its gadgets are built from its Go module, once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.bench.peers import DoesNotWork, Running, Tool, peer
from tests.e2e.cluster.binaries import built_once

MODULE = "github.com/inspektor-gadget/inspektor-gadget"
VERSION = "v0.45.0"
#: A gadget for each kind of event, and its options.
GADGETS = {"opens": ("trace_open",), "execs": ("trace_exec",), "connects": ("trace_tcp", "--connect-only")}
#: It has its gadgets below /var/lib and nowhere else, and asks for the namespaces of process 1, which not every root may
#: see: for it alone its own folder is there, and process 1 is itself.
INSIDE = """
mount --bind "$0/lib" /var/lib
[ -e /proc/1/ns/pid ] || mount --bind /proc/$$ /proc/1
exec "$0/ig" "$@"
"""
#: What its images for builders would tell the compiler. The program of trace_exec that splits arguments is a module of
#: its own, and not to be had: they are shown as they come.
BUILD = """
wasm: ""
cflags: -I{module}/include -I{module}/include/gadget/@ARCH@ -include {folder}/memcmp.h
"""
#: clang before 15 leaves a call of memcmp, which no kernel has.
MEMCMP = """
static inline int compare(const unsigned char *a, const unsigned char *b, int size)
{
	int different = 0;
#pragma unroll
	for (int i = 0; i < size; i++)
		different |= a[i] ^ b[i];
	return different;
}
#define __builtin_memcmp(a, b, size) compare((const void *)(a), (const void *)(b), size)
"""


def built() -> Path:
    """The folder with ig and its gadgets. Takes minutes at first; DoesNotWork if it cannot be built."""
    return built_once(f"ig-{VERSION}", f"Inspektor Gadget {VERSION}", _build)


def _build(folder: Path) -> None:
    _run("go", "mod", "download", f"{MODULE}@{VERSION}")
    module = _run("go", "list", "-m", "-f", "{{.Dir}}", f"{MODULE}@{VERSION}").strip()
    flags = f"-s -w -X {MODULE}/internal/version.version={VERSION}"
    # in its own folder, whose go.sum tells what all that it needs has to be
    _run("go", "build", "-C", module, "-trimpath", "-ldflags", flags, "-o", f"{folder}/ig", "./cmd/ig")
    (folder / "lib/ig").mkdir(parents=True)
    (folder / "memcmp.h").write_text(MEMCMP)
    (folder / "build.yaml").write_text(BUILD.format(module=module, folder=folder))
    for gadget, *_ in GADGETS.values():
        build = ("image", "build", "--local", "--file", f"{folder}/build.yaml", "--tag", f"{gadget}:{VERSION}")
        _run(*_ig(folder, *build, f"{module}/gadgets/{gadget}"))


def _run(*command: str) -> str:
    """What a command prints; what it complains of is shown."""
    environment = os.environ | {"CGO_ENABLED": "0"}
    done = subprocess.run(["nice", *command], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise DoesNotWork(f"it cannot be built: {' '.join(command[:3])} failed")
    return done.stdout


def _ig(folder: Path, *words: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-ec", INSIDE, str(folder), *words]


def ig(kind: str) -> Tool:
    """It, for a kind of event."""
    gadget, *options = GADGETS[kind]
    name = f"ig run {gadget} (Inspektor Gadget {VERSION}), as JSON"
    words = ["run", f"{gadget}:{VERSION}", "--host", "--pull=never", "--verify-image=false", "--output=json", *options]

    def start(folder: Path, output: Path, at_once: bool) -> Running:
        # it writes each event at once, and needs no help with that
        return peer(name, *_ig(built(), *words)).start(folder, output, False)

    return Tool(name, start, '"comm":"NAME"')
