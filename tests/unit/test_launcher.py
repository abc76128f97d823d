from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import kubectl_gadget

FOLDER = Path(kubectl_gadget.__file__).parent
#: In place of the command line: says what has been imported before it, and is interrupted.
CLI = """
import os, sys, time
print(sorted({"enum", "re", "signal"} & sys.modules.keys()), flush=True)
os.kill(os.getpid(), 2)
time.sleep(60)
"""


def test_ctrl_c_at_the_very_beginning_shows_nothing(tmp_path: Path) -> None:
    """Ctrl-C right behind Enter ends the command, and shows no traceback: it is heard before anything is imported."""
    package = tmp_path / "kubectl_gadget"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(CLI)
    done = subprocess.run(
        [sys.executable, "-S", FOLDER / "kubectl-gadget"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "[]\n", "")
