"""`why` on this kernel: the sentence about real containers that ended."""

from __future__ import annotations

import os

import orjson

from tests.conftest import run_cli
from tests.kernel.recordings import ended


def test_missing_file(record, make_pod) -> None:
    """A pod that ended because a file is missing: I am told which file, that it is certain, and what it said."""
    agent, pod = record(), make_pod()
    container = pod.container("app", "/bin/sh", "-c", "echo starting; cat /etc/app/prices.yaml || exit 3")
    ended(container)
    container.delete()
    done = run_cli("why", "cart-0", "--agent", agent.address, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("shop/cart-0, container app, ended ")
    assert "exited with 3" in " ".join(lines[:2])
    assert lines[1].startswith("  certain  ") or lines[2].startswith("  certain  ")
    assert "could not open /etc/app/prices.yaml: no such file (ENOENT)" in " ".join(map(str.strip, lines))
    assert max(map(len, lines)) <= 80
    (found,) = run_cli("why", "cart-0", "-o", "json", "--agent", agent.address).stdout.splitlines()
    assert orjson.loads(found)["findings"][0]["cause"] == "missing-file"
    table = run_cli("why", "-A", "--agent", agent.address).stdout.splitlines()
    assert [line.split()[:3] for line in table[:1]] == [["ENDED", "NAMESPACE", "POD"]] or len(table) == 2
    assert "/etc/app/prices.yaml" in table[-1]
