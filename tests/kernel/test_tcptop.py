"""tcptop on this kernel: the bytes of each end of a connection, as ss tells them."""

from __future__ import annotations

import re
import socket
import sys
from collections import Counter
from pathlib import Path
from threading import Thread

from tests.conftest import wait_until
from tests.live import rows_of, start_json
from tests.pods import run_in

#: A client and a server that is another process, on loopback; writes what ss says of each end before they close.
TALKERS = """
import os, socket, subprocess
place = socket.create_server(("127.0.0.1", 0))
port = place.getsockname()[1]
client = socket.create_connection(("127.0.0.1", port))
server, _ = place.accept()
go, gone = os.pipe()
if not os.fork():
    left = 3_000_017
    while left:
        left -= len(server.recv(1 << 20))
    server.sendall(b"y" * 70_001)
    os.close(gone)
    os.read(go, 1)
    os._exit(0)
server.close()
client.sendall(b"x" * 3_000_017)
left = 70_001
while left:
    left -= len(client.recv(1 << 16))
command = ["ss", "-tinHO", f"sport = {port} or dport = {port}"]
with open("said", "w") as said:
    subprocess.run(command, stdout=said, check=True)
client.close()
os.close(gone)
os.wait()
print("done")
"""


def test_bytes_as_ss_tells(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of a connection I see at each end the bytes sent and received, and what was sent again, as ss tells them."""
    cli = start_json(start_cli, agent, "tcptop", "-p", "cart-0", "--interval", "100ms")
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", TALKERS, cwd=tmp_path)
    rows = rows_of(cli)
    seen: dict[int, Counter[str]] = {}
    for row in rows:
        sums = seen.setdefault(row["src"]["port"], Counter())
        sums.update({each: row[each] for each in ("sent", "received", "retransmits")})
    said = {}
    for line in (tmp_path / "said").read_text().splitlines():
        of = {name: int(value) for name, value in re.findall(r"\b(bytes_\w+):(\d+)", line)}
        again = re.search(r"\bretrans:\d+/(\d+)", line)
        said[int(re.findall(r":(\d+)\s", line)[0])] = {
            "sent": of["bytes_sent"] - of.get("bytes_retrans", 0),
            "received": of["bytes_received"],
            "retransmits": int(again[1]) if again else 0,
        }
    assert seen == said
    assert sorted((each["sent"], each["received"]) for each in seen.values()) == [
        (70_001, 3_000_017),
        (3_000_017, 70_001),
    ]
    assert all(row["rtt"] > 0 for row in rows)
    assert len({row["pid"] for row in rows if row["sent"]}) == 2


#: Writes on a connection that is there already, of which the other end is in the test.
LATE = """
import socket
connection = socket.create_connection(("127.0.0.1", int(open("port").read())))
connection.sendall(b"before" * 1000)
open("ready", "w").close()
connection.recv(1)
connection.sendall(b"after" * 11)
connection.recv(1)
print("done")
"""


def test_from_now_on(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of a connection that is older than my command only what it does from now on counts."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        (tmp_path / "port").write_text(str(place.getsockname()[1]))
        work = Thread(
            target=run_in, args=(bare("shop", "cart-0").cgroup, sys.executable, "-c", LATE), kwargs={"cwd": tmp_path}
        )
        work.start()
        connection, _ = place.accept()
        wait_until(lambda: (tmp_path / "ready").exists(), "the first bytes")
        cli = start_json(start_cli, agent, "tcptop", "-p", "cart-0", "--interval", "100ms")
        connection.sendall(b"g")
        left = 6 * 1000 + 5 * 11
        while left:
            left -= len(connection.recv(1 << 16))
        connection.sendall(b"g")
        work.join()
        connection.close()
    rows = rows_of(cli)
    assert (sum(row["sent"] for row in rows), sum(row["received"] for row in rows)) == (55, 2)
