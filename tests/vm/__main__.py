"""The core tests on each of Debian's kernels: python -m tests.vm [LINE…]; or one command there, with --run."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.conftest import compile_workload
from tests.e2e.cluster.binaries import cache
from tests.vm import results, userland
from tests.vm.archive import NotHad
from tests.vm.cases import all_cases
from tests.vm.guest import Crashed, Done, GuestError, run
from tests.vm.kernels import LINES, Kernel, find_kernels
from tools import generate

ROOT = Path(__file__).parents[2]
#: Two processors' worth of guests; more of them only wait for each other.
AT_ONCE = 2
GUEST_SECONDS = 600.0
COMPILERS = {"amd64": "gcc", "arm64": "aarch64-linux-gnu-gcc"}
WORKLOADS = (
    "binds",
    "caps",
    "ends",
    "execs",
    "exits",
    "literals",
    "mods",
    "mounts",
    "odd_opens",
    "offs",
    "opens",
    "passes",
    "prints",
    "privs",
    "signals",
    "slow",
    "spins",
    "suspect",
    "traffic",
    "trapped",
)


def try_kernel(kernel: Kernel, command: str) -> Done | GuestError:
    try:
        return run(kernel, command, GUEST_SECONDS)
    except GuestError as error:
        return error


def in_root(kernel: Kernel, *words: str) -> str:
    """A shell command that runs words where this process is, with its PATH."""
    path = os.environ["PATH"] if kernel.arch == "amd64" else "/run/bin:/usr/bin"
    return f"export PATH={shlex.quote(path)}\ncd {shlex.quote(str(ROOT))} && {shlex.join(words)}"


def core_tests(kernel: Kernel, workloads: Path, only: Collection[str]) -> str:
    """A shell command that runs the core tests of some objects."""
    python = [sys.executable] if kernel.arch == "amd64" else userland.python()
    return in_root(kernel, *python, "-m", "tests.vm.core", str(workloads / kernel.arch), *only)


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


@click.command()
@click.argument("lines", nargs=-1, type=click.Choice(LINES))
@click.option("--accept", is_flag=True, envvar="ACCEPT", help="Take what is seen as what is expected from now on.")
@click.option(
    "--lacks",
    multiple=True,
    envvar="LACKS",
    help="Take also that this object worked and does not any more. Repeatable.",
)
@click.option("--only", multiple=True, envvar="ONLY", help="Only this object. Figures of others stay. Repeatable.")
@click.option("--run", "command", help="Run this shell command on the kernels instead.")
def main(lines: tuple[str, ...], accept: bool, lacks: tuple[str, ...], only: tuple[str, ...], command: str) -> None:
    """Try kernels, all of them unless some are named. Fails if one cannot be had, does not boot or shows something else."""
    if platform.machine() != "x86_64" or os.geteuid():
        raise click.ClickException(
            "guests run this machine's own programs: it has to be x86_64, and this to run as root"
        )
    began = time.monotonic()
    cache().mkdir(parents=True, exist_ok=True)
    try:
        kernels = find_kernels(lines or LINES)
        if any(kernel.arch != "amd64" for kernel in kernels):
            userland.find_userland()
    except NotHad as error:
        raise click.ClickException(str(error)) from None
    if command:
        words = ("bash", "-c", command)
        sys.exit(max(show(kernel, try_kernel(kernel, in_root(kernel, *words))) for kernel in kernels))
    accepted, seen, failed = results.load(), {}, False
    cases = {case.__name__ for case in all_cases()}
    for option, names in {"--only": only, "--lacks": lacks}.items():
        if unknown := set(names) - cases:
            raise click.UsageError(f"{option} {' '.join(sorted(unknown))}: there is no such object")
    with tempfile.TemporaryDirectory(prefix="workloads-", dir=cache()) as folder:
        for arch in sorted({kernel.arch for kernel in kernels}):
            Path(folder, arch).mkdir()
            for name in WORKLOADS:
                compile_workload(name, Path(folder, arch), COMPILERS[arch])
        with ThreadPoolExecutor(AT_ONCE) as pool:
            tried = pool.map(
                lambda kernel: try_twice(kernel, core_tests(kernel, Path(folder), only or results.objects())), kernels
            )
            for kernel, done in zip(kernels, tried, strict=True):
                if isinstance(done, GuestError):
                    failed = True
                    click.echo(f"{kernel.release:28}        FAILED\n{indented(str(done))}", nl=False)
                    continue
                result, problems, notes = results.read(done)
                before = accepted.get(kernel.line, results.Result())
                compared = None if accept else before
                problems += results.judge(kernel.line, result, set(only) or cases, compared, whole=not only)
                problems += results.broken(result, before, lacks) if accept else []
                failed = failed or bool(problems)
                if not problems:
                    seen[kernel.line] = accepted[kernel.line].with_new(result) if only else result
                said = "FAILED" if problems else ", ".join(lacking(result)) or "all works"
                more = f" ({', '.join(notes)})" if notes else ""
                click.echo(f"{kernel.release:28} {done.seconds:3.0f} s  {said}{more}")
                click.echo("".join(map(indented, problems)), nl=False)
    if accept and seen:
        results.save(seen)
        generate.write()
    click.echo(f"{len(kernels)} kernels in {time.monotonic() - began:.0f} s")
    sys.exit(failed)


def try_twice(kernel: Kernel, command: str) -> Done | GuestError:
    """A kernel that crashes is tried once more, and that is told.

    Emulated CPUs in threads of their own may run an instruction that another one is just changing, as kernels do with
    their static keys. A crash that is ours comes again.
    """
    done = try_kernel(kernel, command)
    if not isinstance(done, Crashed):
        return done
    click.echo(f"{kernel.release:28}        crashed, tried once more\n{indented(str(done))}", nl=False)
    return try_kernel(kernel, command)


def lacking(result: results.Result) -> list[str]:
    return [f"{name}: {state}" for name, state in result.gadgets.items() if state != results.WORKS]


def show(kernel: Kernel, done: Done | GuestError) -> int:
    click.echo(f"{kernel.release}:\n{indented(str(done) if isinstance(done, GuestError) else done.output)}", nl=False)
    return 1 if isinstance(done, GuestError) else done.status


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed: {error.stderr or error}")
