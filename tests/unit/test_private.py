"""Files with what was captured."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.advise.flows import FlowContext, Header, write_flows
from kubectl_gadget.stream.recording import Writer
from tests.strangers import schema_text


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_are_mine(tmp_path: Path, umask: int) -> None:
    """What was captured nobody else can read, whatever the umask; the mode of a file that was there is left as it is."""
    before = os.umask(umask)
    try:
        for name, write in (
            (
                "record",
                lambda path: Writer(path, "execsnoop").__exit__(None, None, None) if path.exists() else _record(path),
            ),
            ("flows", lambda path: write_flows(path, FlowContext(Header(0, 1, ("node-a",))), [])),
        ):
            path = tmp_path / name
            write(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600 & ~umask
            for mode in (0o640, 0o600):
                path.chmod(mode)
                write(path)
                assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def _record(path: Path) -> None:
    with Writer(path, "execsnoop") as writer:
        assert list(writer.keep([("node-a", pb.RunReply(node="node-a", started=pb.Started(schema=schema_text())))]))
