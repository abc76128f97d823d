"""udpsnoop on this kernel: every conversation's begin and end, at both ends, with what was said."""

from __future__ import annotations

from collections import Counter

from tests import datagrams
from tests.live import rows_of, start_json, start_python_in


def test_exact(agent, start_cli, make_pod) -> None:
    """I see each conversation begin and end, at both ends, with why, its bytes and datagrams each way, and process."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "udpsnoop", "-p", "cart-0", "--silence", datagrams.SILENCE)
    with start_python_in(container, "tests.datagrams") as process:
        assert process.communicate(timeout=60)[0] == "done\n"
    rows = rows_of(cli)
    assert Counter(map(datagrams.seen, rows)) == datagrams.rows()
    assert {(row["pod"], row["pid"], row["src"]["addr"]) for row in rows} == {("cart-0", process.pid, "127.0.0.1")}
    assert all((row["duration"] is None) == (row["operation"] == "begin") for row in rows)
    begun = {(row["src"]["port"], row["dst"]["port"]) for row in rows if row["operation"] == "begin"}
    assert begun == {(row["src"]["port"], row["dst"]["port"]) for row in rows if row["operation"] == "end"}


def test_many_peers(agent, start_cli, make_pod) -> None:
    """A socket that closes ends the conversations with its last 16 peers; the others end by silence."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "udpsnoop", "-p", "cart-0")
    with start_python_in(container, "tests.datagrams", "23") as process:
        assert process.communicate(timeout=60)[0] == "done\n"
    rows = [row for row in rows_of(cli) if row["role"] == "client"]
    assert Counter((row["operation"], row["reason"]) for row in rows) == {("begin", "none"): 23, ("end", "closed"): 16}
    last = [row["dst"]["port"] for row in rows if row["operation"] == "begin"][-16:]
    assert {row["dst"]["port"] for row in rows if row["operation"] == "end"} == set(last)
