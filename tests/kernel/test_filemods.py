"""filemods on this kernel: each operation by each kind of path, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, start_json
from tests.pods import run_in

#: What tests/workloads/mods.c does in its folder: (operation, path, to, error): how often. Paths are
#: below the folder, but for those after a =.
MODS = {
    ("mkdir", "mods", "", None): 1,
    ("mkdir", "mods/sub", "", None): 13,
    ("rmdir", "mods/sub", "", None): 13,
    ("mkdir", "mods/next", "", None): 5,
    ("rmdir", "mods/next", "", None): 5,
    ("link", "mods/file", "mods/hard", None): 5,
    ("unlink", "mods/hard", "", None): 5,
    ("symlink", "mods/soft", "=../mods/file", None): 5,
    ("unlink", "mods/soft", "", None): 5,
    ("rename", "mods/file", "mods/moved", None): 7,
    ("rename", "mods/moved", "mods/file", None): 7,
    ("rename", "mods/file", "mods/file", "EEXIST"): 7,
    ("truncate", "mods/file", "", None): 35,
    ("chmod", "mods/file", "", None): 38,
    ("chown", "mods/file", "", None): 38,
    ("utimes", "mods/file", "", None): 6,
    ("setxattr", "mods/file", "", None): 6,
    ("removexattr", "mods/file", "", None): 3,
    ("unlink", "mods/none", "", "ENOENT"): 23,
    ("rename", "mods/none", "mods/other", "ENOENT"): 23,
    ("rmdir", "mods", "", "ENOTEMPTY"): 23,
    ("truncate", "", "", "EBADF"): 23,
    ("chmod", "", "", "ENOENT"): 23,
    ("unlink", "=file", "", "EBADF"): 23,
    ("unlink", "mods/file", "", None): 1,
    ("chmod", "mods/file", "", "ENOENT"): 2,
    ("rmdir", "..", "", "ENOTEMPTY"): 1,
}


def way(row: dict, folder: Path | str) -> tuple[object, ...]:
    def short(path: str) -> str:
        return path.removeprefix(f"{folder}/") if path.startswith("/") or not path else f"={path}"

    return row["operation"], short(row["path"]), short(row["to"]), row["error"]


def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of each change of a file, in vain or not, I see exactly as many as there were, with whole paths."""
    cli = start_json(start_cli, agent, "filemods", "--comm", "mods")
    run_in(bare("shop", "cart-0").cgroup, workload("mods"), cwd=tmp_path)
    rows = rows_of(cli)
    assert Counter(way(row, tmp_path) for row in rows) == MODS
    asked = Counter(
        (row["operation"], row["mode"], row["owner"], row["group"], row["size"], row["attribute"], row["flags"])
        for row in rows
        if not row["error"] or row["operation"] == "rename"
    )
    nobody = (1 << 32) - 1
    assert asked == {
        ("mkdir", "0755", nobody, nobody, 0, "", "0"): 1,
        ("mkdir", "0711", nobody, nobody, 0, "", "0"): 13,
        ("mkdir", "0700", nobody, nobody, 0, "", "0"): 5,
        ("rmdir", "0000", nobody, nobody, 0, "", "0"): 18,
        ("link", "0000", nobody, nobody, 0, "", "0"): 5,
        ("unlink", "0000", nobody, nobody, 0, "", "0"): 11,
        ("symlink", "0000", nobody, nobody, 0, "", "0"): 5,
        ("rename", "0000", nobody, nobody, 0, "", "0"): 37,
        ("rename", "0000", nobody, nobody, 0, "", "RENAME_NOREPLACE"): 7,
        ("truncate", "0000", nobody, nobody, 4711, "", "0"): 17,
        ("truncate", "0000", nobody, nobody, 47, "", "0"): 17,
        ("truncate", "0000", nobody, nobody, 11, "", "0"): 1,
        ("chmod", "0640", nobody, nobody, 0, "", "0"): 19,
        ("chmod", "4600", nobody, nobody, 0, "", "0"): 19,
        ("chown", "0000", 1234, nobody, 0, "", "0"): 19,
        ("chown", "0000", nobody, 99, 0, "", "0"): 19,
        ("utimes", "0000", nobody, nobody, 0, "", "0"): 6,
        ("setxattr", "0000", nobody, nobody, 0, "trusted.memo", "0"): 3,
        ("setxattr", "0000", nobody, nobody, 0, "trusted.more", "0"): 3,
        ("removexattr", "0000", nobody, nobody, 0, "trusted.memo", "0"): 3,
    }


def test_only_some(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --ops I see only the operations that I name, with --failed only what failed."""
    cli = start_json(start_cli, agent, "filemods", "--comm", "mods", "--ops", "rename,rmdir", "--failed")
    run_in(bare().cgroup, workload("mods"), cwd=tmp_path)
    wanted = {key: count for key, count in MODS.items() if key[0] in ("rename", "rmdir") and key[3]}
    assert Counter(way(row, tmp_path) for row in rows_of(cli)) == wanted


def test_unknown_operation(agent, start_cli) -> None:
    """An operation that there is not is refused by a line that names those that there are."""
    out, err = start_cli("filemods", "--agent", agent.address, "--ops", "rename,delete").finish(0)
    assert not out
    assert "no 'delete': some of unlink, rename, link" in err
