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


#: In place of the command line: is interrupted, and goes on.
UNHEARD = """
import os
os.kill(os.getpid(), 2)
def main():
    print("goes on")
"""


def run(folder: Path, cli: str, handler: signal.Handlers) -> subprocess.CompletedProcess[str]:
    """What our script does with another command line than ours, where Ctrl-C is ignored or not as it starts."""
    package = folder / "kubectl_gadget"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(cli)
    return subprocess.run(
        [sys.executable, "-S", FOLDER / "kubectl-gadget"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        capture_output=True,
        text=True,
        check=False,
    )


def test_ctrl_c_at_the_very_beginning_shows_nothing(tmp_path: Path) -> None:
    """Ctrl-C right behind Enter ends the command, and shows no traceback: it is heard before anything is imported."""
    done = run(tmp_path, CLI, signal.SIG_DFL)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "[]\n", "")


def test_ctrl_c_of_others(tmp_path: Path) -> None:
    """A command in the background of a script, which ignores Ctrl-C, ignores it from its beginning."""
    done = run(tmp_path, UNHEARD, signal.SIG_IGN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")
