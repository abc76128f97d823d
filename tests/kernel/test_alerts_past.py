"""Rules that always judge on this kernel: what an alert of a real container tells of what came before it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import CLI, Agent, Cli, events, run_cli, wait_until
from tests.pods import Pod

RULES = """
- rule: Key is read
  desc: A program in a container reads the shadow file.
  condition: >
    evt.type in (open, openat) and fd.name = /etc/shadow and container.id != host
    and not proc.name = nobody
  output: Shadow is read | program=%proc.name
  priority: Critical
- rule: Never
  desc: It is not there.
  condition: evt.type in (open, openat) and fd.name startswith /never and evt.is_open_write = true
  output: Never
  priority: Notice
"""
SCRIPT = "echo x > /etc/written; /bin/cat /etc/not-there; /bin/cat /etc/shadow; true"


def on_terminal(*args: str) -> list[str]:
    """The lines that a terminal of 80 columns shows."""
    leader, follower = pty.openpty()
    subprocess.run(["stty", "cols", "80"], stdin=follower, check=True)
    with subprocess.Popen([str(CLI), *args], stdout=follower, stderr=subprocess.DEVNULL) as process:
        os.close(follower)
        text = b""
        try:
            while data := os.read(leader, 1 << 16):
                text += data
        except OSError:  # the last one who had it open is gone
            pass
        assert process.wait(20) == 0
    os.close(leader)
    return text.decode().split("\r\n")


def test_history(record: Callable[..., Agent], make_pod: Callable[..., Pod], start_cli: Callable[..., Cli],
                 tmp_path: Path) -> None:  # fmt: skip
    """Of an alert, also one that I saw live, I see who did it, the programs and files before it, also from before a change of
    rules, and its system calls; also when the pod is gone.
    """
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "rules.yaml").write_text(RULES)
    agent = record("--detect", str(folder))
    web = make_pod("shop", "web-0").container("web", "/bin/sleep", "1000")
    (web.bundle / "rootfs/etc/shadow").write_text("root:x\n")
    where = ("--agent", agent.address)

    def judging() -> bool:
        subprocess.run(
            ["runc", "exec", web.id, "/bin/sh", "-c", "true > /never/there"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return bool(events(run_cli("alerts", "-o", "json", *where).stdout))

    wait_until(judging, "the first alert")
    (folder / "other.yaml").write_text(RULES.replace("Never", "Other").replace("Key is", "Other key is"))
    wait_until(lambda: "4 rules; " in run_cli("status", "-o", "json", *where).stdout, "the other rules")
    live = start_cli("detect", "--rules", str(folder / "rules.yaml"), *where)
    wait_until(lambda: "2 rules of a client began" in agent.log.read_text(), "the client's rules")
    subprocess.run(["runc", "exec", web.id, "/bin/sh", "-c", SCRIPT], stdin=subprocess.DEVNULL, check=True)

    def last() -> list[str]:
        kept = events(run_cli("alerts", "-o", "json", *where).stdout)
        return [each["id"] for each in kept if each["rule"] == "Key is read"]

    wait_until(lambda: bool(last()), "the alert")
    (name,) = last()
    out, _ = live.finish()
    assert re.search(rf"  {name}  Critical .*  Key is read", out), out
    web.delete()
    text = run_cli("alerts", "show", name, *where).stdout
    said = events(run_cli("alerts", "show", name, "-o", "json", *where).stdout)[0]
    assert [each["name"] for each in said["ancestry"]][:2] == ["cat", "sh"]
    assert said["ancestry"][0]["command"] == "cat /etc/shadow" and said["ancestry"][0]["path"] == "/bin/busybox"
    assert (said["rule"], said["namespace"], said["pod"], said["container"]) == ("Key is read", "shop", "web-0", "web")
    assert re.search(r"exec +sh\[\d+\] /bin/sh -c ", text) and re.search(r"exec +cat\[\d+\] /bin/cat /etc/shadow", text)
    assert re.search(r"open +sh\[\d+\] /etc/written\n", text)
    assert re.search(r"open +sh\[\d+\] /never/there: ENOENT\n", text), "what was before other rules came"
    assert re.search(r"open +cat\[\d+\] /etc/not-there: ENOENT\n", text)
    assert re.search(r"\[sh \d+\] +open(at)?\(.*\"/etc/written\", O_WRONLY\|O_CREAT\|O_TRUNC.*\) = \d", text)
    assert re.search(r"\[cat \d+\] +open(at)?\(.*\"/etc/shadow\", O_RDONLY", text)
    assert "\n  A program in a container reads the shadow file.\n" in text
    assert said["condition"].startswith("evt.type in (open, openat)")
    narrow = on_terminal("alerts", "show", name, *where)
    assert max(map(len, narrow)) <= 80 and any("/etc/written" in line for line in narrow)
