"""tcpretrans on this kernel: every segment that is sent again, with why and by whom."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from tests.conftest import events
from tests.live import start_json, start_python_in
from tests.losses import LOST, SYN_ACK


def test_exact(agent, start_cli, make_pod, tmp_path: Path) -> None:
    """I see each segment that TCP sends again, exactly as many as the kernel counts, with reason, state and process."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "tcpretrans", "-p", "cart-0")
    counts = tmp_path / "counts"
    with start_python_in(container, "tests.losses", str(counts)) as process:
        assert process.communicate(timeout=120)[0] == "done\n"
    told = json.loads(counts.read_text())
    out, err = cli.finish()
    # sockets may outlive the cgroups of tests before this one: whose they were nobody knows any more
    assert re.search(r"nothing lost|; \d+ lost: container not known on node-a \(other \d+\)\.", err), err
    rows = events(out)

    by_connection = defaultdict(list)
    for row in rows:
        by_connection[row["src"]["port"], row["dst"]["port"]].append(row)
    answers = [row for row in rows if row["reason"] == "syn ack"]
    others = [each for each in by_connection.values() if each[0]["reason"] != "syn ack"]
    assert Counter(map(len, others)) == Counter(told["timeouts"] + told["fast"] + told["syn"])
    assert all([row["total"] for row in each] == list(range(1, len(each) + 1)) for each in others)
    seen = Counter((each[0]["reason"], each[0]["state"], each[0]["bytes"]) for each in others)
    assert seen == {
        ("tlp", "established", LOST): len(told["timeouts"]),
        ("fast", "established", LOST): len(told["fast"]),
        ("rto", "syn sent", 0): len(told["syn"]),
    }
    after = [row for each in others if each[0]["reason"] == "tlp" for row in each[1:]]
    assert after and {row["reason"] for row in after} == {"rto"}
    assert [(row["state"], row["srtt"], row["bytes"]) for row in answers] == [("syn recv", None, 0)] * SYN_ACK
    assert {(row["pod"], row["pid"], row["src"]["addr"]) for row in rows} == {("cart-0", process.pid, "127.0.0.1")}
