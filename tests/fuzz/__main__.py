"""`make fuzz`: each target for FUZZ_SECONDS, in a process of its own; ends with the input that a parser failed on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: What a parser failed on is kept here.
KEPT = Path(".fuzz")


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Try one target until its time is up. Never returns."""
    import atheris

    with atheris.instrument_imports(include=["gadget", "agent", "kubectl_gadget"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    (corpus / "valid").write_bytes(target.seed())
    options = [f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20", f"-artifact_prefix={KEPT}/{name}-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.try_it)
    atheris.Fuzz()


def main() -> None:
    """Fuzz the targets named, or all of them."""
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], seconds, Path(sys.argv[3]))
    from tests.fuzz.targets import TARGETS

    KEPT.mkdir(exist_ok=True)

    def run(name: str) -> tuple[str, subprocess.CompletedProcess[str]]:
        with tempfile.TemporaryDirectory() as corpus:
            command = [sys.executable, "-m", "tests.fuzz", "--one", name, corpus]
            return name, subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)

    pool = ThreadPoolExecutor(os.cpu_count())  # most of a short run is the instrumenting of what is imported
    for name, done in pool.map(run, sys.argv[1:] or TARGETS):
        said = done.stdout + done.stderr
        if done.returncode:
            story = [line for line in said.splitlines() if not line.startswith(("#", "INFO", "WARNING", "stat::"))]
            pool.shutdown(cancel_futures=True)
            sys.exit("\n".join([*story, f"{name}: failed"]))
        executed = next((line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line), "?")
        print(f"{name}: {executed} inputs in {seconds} s, none of which it failed on", flush=True)


if __name__ == "__main__":
    main()
