"""snisnoop on this kernel: every hello of TLS that a container sends, however it is cut, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests import tls
from tests.live import rows_of, start_json, start_python_in


def test_exact(agent, start_cli, make_pod) -> None:
    """I see each TLS hello of a container once, with name and process, however it is cut, and why one is not whole."""
    container = make_pod("shop", "tls-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "snisnoop", "-p", "tls-0")
    with start_python_in(container, "tests.tls", "run") as process:
        assert process.communicate(timeout=60)[0] == "done\n"
    rows = rows_of(cli)
    assert Counter(tls.seen(row, lambda end: end["addr"]) for row in rows) == tls.rows()
    assert {(row["pod"], row["pid"]) for row in rows} == {("tls-0", process.pid)}
    assert all(row["src"]["addr"] == row["dst"]["addr"] and row["src"]["port"] != row["dst"]["port"] for row in rows)


def test_flood(agent, start_cli, make_pod, tmp_path: Path) -> None:
    """A container that begins hellos and does not end them costs only itself: others' are read, and its own are told."""
    flooding, other = (make_pod("shop", pod).container("app", "/bin/sleep", "600") for pod in ("tls-0", "tls-1"))
    cli = start_json(start_cli, agent, "snisnoop", "-n", "shop")
    with start_python_in(flooding, "tests.tls", "flood", str(tmp_path / "go")) as process:
        assert process.stdout and process.stdout.readline() == "full\n"
        with start_python_in(other, "tests.tls", "pieces") as meanwhile:
            assert meanwhile.communicate(timeout=60)[0] == "done\n"
        (tmp_path / "go").touch()
        assert process.communicate(timeout=60)[0] == "done\n"
    assert Counter((row["pod"], row["state"]) for row in rows_of(cli)) == {
        ("tls-0", "unfinished"): tls.FLOOD + tls.PIECES,
        ("tls-0", "whole"): tls.PIECES,
        ("tls-1", "whole"): tls.PIECES,
    }
