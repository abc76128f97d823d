"""What each gadget's events look like, pinned in tests/unit/snapshots: `make snapshots` after a change on purpose."""

from __future__ import annotations

import os
import time
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.rows import Decoder
from kubectl_gadget.output import choose_fields, make_output
from tests import tls

SNAPSHOTS = Path(__file__).parent / "snapshots"
CLOCK = 1_700_000_000_000_000_000
WEB, CART = (IPv6Address(f"::ffff:10.244.1.{last}").packed for last in (9, 7))
#: A question of DNS with its length in place of its id, and the same with an address.
ASKED = b"\0\x19\1\0\0\1\0\0\0\0\0\0\3www\3a.b\0\0\1\0\1"
ANSWERED = b"\0\x29" + ASKED[2:6] + b"\0\1\0\0\0\0" + ASKED[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\0\0\1"

#: The fields that are read from a hello of TLS.
OF_HELLO = ("name", "alpn", "version", "ech", "state")

#: Kinds of paths that have a directory and a path.
ABSOLUTE = ("absolute_path", "full_path")
#: What stands for no user and no group.
NOBODY = (1 << 32) - 1

#: An event of a gadget that has none below.
ANY: list[dict[str, Any]] = [{"pid": 7, "comm": b"app"}]
#: Events of each gadget, so that every form of every field is seen. A text member is given as bytes; an endpoint as (address, port); a full path as its directory.
EVENTS: dict[str, list[dict[str, Any]]] = {
    "execsnoop": [
        {"pid": 4711, "ppid": 1, "comm": b"sh", "pcomm": b"runc", "args": b"sh\0-c\0a b\0", "exe": b"sh/bin/"},
        {"pid": 4712, "ppid": 4711, "comm": b"sh", "error": 2, "args": b"psql\0", "exe": b"psql/bin/"},
    ],
    "opensnoop": [
        {"pid": 4711, "comm": b"cart", "fd": 3, "flags": 0o2000000, "path": b"/etc/hosts"},
        {"pid": 4711, "comm": b"cart", "fd": -1, "error": 13, "flags": 0o101, "mode": 0o640, "path": b"a\x1b[2J"},
        {"pid": 4711, "comm": b"cart", "fd": 4, "flags": 0o2000000, "path": b"./data/x",
         "full_path": b"cart/lib/var/", "file": b"x/data/srv/"},
    ],
    "filemods": [
        {"pid": 9, "comm": b"mv", "operation": 1, "path": b"/srv/a", "to": b"/srv/archive/2026/a", "owner": NOBODY,
         "group": NOBODY, "flags": 1},
        {"pid": 9, "comm": b"rm", "operation": 0, "error": 13, "path": b"/etc/shadow", "owner": NOBODY,
         "group": NOBODY},
        {"pid": 9, "comm": b"chown", "operation": 8, "path": b"/srv/a", "owner": 1000, "group": NOBODY},
        {"pid": 9, "comm": b"setcap", "operation": 10, "path": b"/bin/ping", "attribute": b"security.capability",
         "owner": NOBODY, "group": NOBODY},
        {"pid": 9, "comm": b"truncate", "operation": 6, "path": b"/var/log/app.log", "size": 1 << 20},
    ],
    "fsslower": [
        {"pid": 9, "comm": b"postgres", "operation": 3, "latency": 212_345_678, "type": b"ext4",
         "path": b"/var/lib/postgresql/16/main/pg_wal/000000010000000000000001"},
        {"pid": 9, "comm": b"cart", "operation": 0, "latency": 12_345_678, "bytes": 8192, "type": b"nfs4",
         "path": b"/srv/a"},
        {"pid": 9, "comm": b"cart", "operation": 2, "error": 110, "latency": 30_012_345_678, "path": b"/srv/b"},
    ],
    "fdpass": [
        {"pid": 9, "comm": b"dockerd", "operation": 0, "fd": 7, "socket": 3, "type": 1, "inode": 4711, "peer_pid": 17,
         "peer_comm": b"containerd", "path": b"/run/containerd/io"},
        {"pid": 9, "comm": b"app", "operation": 1, "fd": 9, "socket": 4, "type": 3, "inode": 4712, "path": b"/TCP"},
    ],
    "ttysnoop": [
        {"pid": 9, "comm": b"sh", "tty": 0x8800, "operation": 0, "bytes": 14, "data": b"/srv/app # \x1b[6n"},
        {"pid": 10, "comm": b"ls", "tty": 0x8803, "operation": 0, "bytes": 22, "data": b"caf\xc3\xa9\t\xff  etc  srv  tmp\n"},
        {"pid": 11, "comm": b"cat", "tty": 0x500, "operation": 0, "bytes": 212, "truncated": True},
        {"pid": 9, "comm": b"sh", "tty": 0x440, "operation": 1, "bytes": 5000, "truncated": True, "data": b"a long line " * 20},
    ],
    "syscalltop": [
        {"pid": 9, "comm": b"cart", "syscall": 202, "calls": 17_011, "errors": 503, "time": 59_012_345_678},
        {"pid": 9, "comm": b"cart", "syscall": (1 << 17) | 63, "calls": 11, "time": 12_345},
    ],
    "filetop": [
        {"pid": 9, "comm": b"postgres", "reads": 17_011, "writes": 503, "read": 139_354_112, "written": 4_120_576,
         "inode": 4711, "path": b"/var/lib/postgresql/16/main/pg_wal/000000010000000000000001"},
        {"pid": 9, "comm": b"cart", "reads": 11, "read": 12, "inode": 7, "path": b"/srv/a"},
    ],
    "tcptop": [
        {"pid": 9, "comm": b"curl", "src": (CART, 44122), "dst": (WEB, 80), "sent": 4_120_576, "received": 139_354_112,
         "retransmits": 3, "rtt": 212_345},
        {"pid": 0, "comm": b"", "uid": 0xFFFFFFFF, "src": (CART, 80), "dst": (IPv6Address("2001:db8::7").packed, 44124),
         "sent": 12, "rtt": DURATION_UNKNOWN},
    ],
    "biotop": [
        {"pid": 9, "comm": b"postgres", "operation": 1, "device": b"nvme0n1", "requests": 17_011, "errors": 3,
         "bytes": 139_354_112, "time": 59_012_345_678, "longest": 212_345_678},
        {"pid": 17, "comm": b"kworker/u8:1", "operation": 0, "device": b"dm-0", "requests": 1, "bytes": 4096,
         "time": 12_345, "longest": 12_345},
    ],
    "runqlat": [
        {"pid": 0, "waited": [1_373, *[0] * 11, 54, 129, 17, *[0] * 7, 2, *[0] * 24, 7_123_456]},
        {"pid": 9, "comm": b"postgres", "waited": [*[0] * 46, 1, 1 << 47]},
    ],
    "biolatency": [
        {"operation": 1, "device": b"nvme0n1", "latency": [*[0] * 17, 3, 41, 7, *[0] * 27, 16_123_456]},
    ],
    "tcprtt": [{"dst": (WEB, 0), "rtt": [*[0] * 16, 3, 0, 1, *[0] * 28, 323_456]}, {}],
    "syscall-latency": [{"syscall": 74, "latency": [*[0] * 20, 1, *[0] * 26, 1_048_576]}],
    "cputop": [
        {"pid": 0, "cpu": 1_502_703_231, "waited": 59_012_345_678, "throttled": 212_345_678, "pressure": 9_870, "stalled": 40},
        {"pid": 9, "comm": b"postgres", "cpu": 12_345, "throttled": DURATION_UNKNOWN, "pressure": DURATION_UNKNOWN, "stalled": DURATION_UNKNOWN},
    ],
    "dnssnoop": [
        {"pid": 9, "comm": b"curl", "protocol": 17, "message": 0, "src": (CART, 44122), "dst": (WEB, 53),
         "server": (WEB, 53), "rcode": 65535, "id": 7, "name": ASKED, "type": ASKED, "latency": DURATION_UNKNOWN},
        {"pid": 9, "comm": b"curl", "protocol": 17, "message": 1, "src": (CART, 44122), "dst": (WEB, 53),
         "server": (WEB, 53), "rcode": 0, "id": 7, "name": ASKED, "type": ASKED, "addresses": ANSWERED,
         "latency": 212_345},
        {"pid": 0, "comm": b"", "protocol": 6, "message": 1, "src": (CART, 44122), "dst": (WEB, 53),
         "server": (WEB, 53), "rcode": 3, "id": 8, "uid": 0xFFFFFFFF, "latency": DURATION_UNKNOWN},
        {"pid": 9, "comm": b"curl", "protocol": 17, "message": 2, "src": (CART, 44122), "dst": (WEB, 53),
         "server": (WEB, 53), "rcode": 65535, "id": 9, "name": ASKED, "type": ASKED, "latency": 5_000_123_456},
    ],
    "snisnoop": [
        {"pid": 9, "comm": b"curl", "src": (CART, 44122), "dst": (WEB, 443), **dict.fromkeys(OF_HELLO, tls.hello(*tls.USUAL))},
        {"pid": 9, "comm": b"firefox", "src": (CART, 44124), "dst": (IPv6Address("2001:db8::7").packed, 8443),
         **dict.fromkeys(OF_HELLO, tls.hello(*tls.ECH_TOO[:-1], tls.extension(tls.ECH, b"")))},
        {"pid": 0, "comm": b"", "uid": 0xFFFFFFFF, "src": (CART, 44126), "dst": (WEB, 443),
         **dict.fromkeys(OF_HELLO, tls.MALFORMED)},
    ],
    "tcpconnect": [
        {"pid": 9, "comm": b"curl", "src": (CART, 44122), "dst": (WEB, 80), "version": 4, "latency": 212_345},
        {"pid": 9, "comm": b"curl", "src": (CART, 44124), "dst": (IPv6Address("2001:db8::7").packed, 443),
         "version": 6, "result": 1, "retransmits": 1, "latency": 1_012_345_678},
        {"pid": 9, "comm": b"curl", "src": (bytes(16), 0), "dst": (WEB, 80), "version": 4, "result": 6, "error": 101},
    ],
    "tcptracer": [
        {"pid": 9, "comm": b"curl", "operation": 0, "src": (CART, 44122), "dst": (WEB, 80), "version": 4},
        {"pid": 9, "comm": b"curl", "operation": 2, "src": (CART, 44122), "dst": (WEB, 80), "version": 4,
         "sent": 1234, "received": 98765, "duration": 3_210_000_000},
        {"pid": 9, "comm": b"old", "operation": 2, "src": (CART, 1), "dst": (WEB, 80), "duration": DURATION_UNKNOWN},
    ],
    "tcpretrans": [
        {"pid": 9, "comm": b"curl", "src": (CART, 44122), "dst": (WEB, 80), "state": 1, "reason": 2, "bytes": 1448,
         "total": 1, "srtt": 212_345},
        {"pid": 9, "comm": b"curl", "src": (CART, 44124), "dst": (WEB, 81), "state": 2, "reason": 1, "timeouts": 2,
         "error": 113, "total": 2, "srtt": DURATION_UNKNOWN},
        {"pid": 0, "comm": b"", "uid": 0xFFFFFFFF, "src": (CART, 80), "dst": (WEB, 44122), "state": 3, "reason": 5,
         "srtt": DURATION_UNKNOWN},
    ],
    "tcpdrop": [
        {"pid": 9, "comm": b"curl", "protocol": 6, "sender": (WEB, 80), "receiver": (CART, 44122), "state": 1, "flags": 24,
         "bytes": 1448, "reason": b"SOCKET_FILTER", "function": b"tcp_v4_rcv"},
        {"pid": 0, "comm": b"", "uid": 0xFFFFFFFF, "protocol": 17, "sender": (CART, 44122), "receiver": (WEB, 80),
         "bytes": 3, "reason": b"NO_SOCKET", "function": b"__udp4_lib_rcv"},
    ],
    "udpsnoop": [
        {"pid": 9, "comm": b"curl", "src": (CART, 44122), "dst": (WEB, 53), "sent": 44, "packets_sent": 1,
         "duration": DURATION_UNKNOWN},
        {"pid": 9, "comm": b"curl", "operation": 1, "src": (CART, 44122), "dst": (WEB, 53), "reason": 1, "sent": 44,
         "received": 128, "packets_sent": 1, "packets_received": 2, "duration": 212_345},
        {"pid": 0, "comm": b"", "uid": 0xFFFFFFFF, "operation": 1, "role": 1, "src": (CART, 53), "dst": (WEB, 44122),
         "reason": 2, "received": 11, "packets_received": 1},
    ],
    "bindsnoop": [
        {"pid": 9, "comm": b"nginx", "protocol": 6, "address": (bytes(10) + b"\xff\xff" + bytes(4), 8080), "options": 1, "fd": 3},
        {"pid": 9, "comm": b"nginx", "protocol": 6, "address": (CART, 80), "error": 98, "options": 7, "fd": 3,
         "hpid": 4711, "hcomm": b"cart", "holder": 7},
        {"pid": 9, "comm": b"nginx", "protocol": 6, "address": (CART, 80), "error": 98, "fd": 3, "hcomm": b"?"},
        {"pid": 9, "comm": b"odd", "protocol": 255, "address": (bytes(16), 0), "error": 9, "options": 24, "fd": -1},
    ],
    "listensnoop": [
        {"pid": 9, "comm": b"nginx", "protocol": 6, "address": (CART, 8080), "options": 1, "backlog": 511, "queue": 128},
        {"pid": 9, "comm": b"odd", "address": (bytes(16), 0), "error": 88, "backlog": -1},
    ],
    "sigsnoop": [
        {"pid": 9, "comm": b"sh", "signal": 15, "tpid": 4711, "ttid": 4711, "tcomm": b"cart", "target": 7, "reason": 1},
        {"pid": 9, "comm": b"sh", "signal": 9, "tpid": 4194303, "result": 5, "error": 3, "reason": 1},
        {"pid": 4711, "comm": b"cart", "signal": 11, "tpid": 4711, "tcomm": b"cart", "target": 7, "reason": 5},
        {"pid": 12, "comm": b"cat", "signal": 17, "tpid": 9, "tcomm": b"sh", "target": 8, "result": 1, "reason": 16},
    ],
    "oomkill": [
        {"pid": 4711, "comm": b"cart", "limit": 32 << 20, "used": 32 << 20, "rss": 31 << 20, "pages": 7936,
         "score_adj": 999, "fpid": 4711, "fcomm": b"cart", "trigger": 7},
        {"pid": 4712, "comm": b"cart", "scope": 1, "rss": 2 << 30, "pages": 1 << 19, "score_adj": -5, "fpid": 9,
         "fcomm": b"kswapd", "trigger": 8},
    ],
    "mountsnoop": [
        {"pid": 9, "comm": b"mount", "flags": 3, "source": b"shelf", "target": b"/srv/data", "type": b"tmpfs", "latency": 33_900},
        {"pid": 9, "comm": b"umount", "operation": 1, "error": 22, "flags": 1 << 27, "source": b"", "target": b"/srv/data",
         "latency": DURATION_UNKNOWN},
    ],
    "privsnoop": [
        {"pid": 9, "comm": b"runc", "call": 8, "namespaces": 0x24020000, "id": -1},
        {"pid": 9, "comm": b"su", "call": 0, "error": 1, "id": 0},
        {"pid": 9, "comm": b"strace", "call": 9, "request": (10 << 16) + 16, "tpid": 4711, "id": -1},
        {"pid": 9, "comm": b"odd", "call": 10, "request": (11 << 16) + 999, "id": -1},
        {"pid": 9, "comm": b"chroot", "call": 18, "name": b"/srv", "id": -1},
    ],
    "capable": [
        {"pid": 9, "comm": b"chroot", "capability": 18, "count": 1, "syscall": 161, "userns": 4026531837},
        {"pid": 9, "comm": b"ping", "capability": 13, "result": 1, "count": 1000, "syscall": (1 << 17) + 198, "level": 1},
        {"pid": 9, "comm": b"odd", "capability": 63, "result": 1, "count": 1, "syscall": 0xFFFFFFFF},
        {"pid": 9, "comm": b"i386", "capability": 7, "count": 10, "syscall": (1 << 16) + 213},
    ],
    "snapshot_process": [
        {"pid": 4711, "ppid": 1, "comm": b"sh", "nspid": 1, "state": 1, "threads": 1, "age": 3_210_000_000,
         "exe": b"sh/bin/"},
        {"pid": 4712, "ppid": 4711, "comm": b"a\x1b[2J", "nspid": 7, "state": 5, "threads": 1, "age": 212_345, "exe": b""},
    ],
    "snapshot_file": [
        {"pid": 4711, "comm": b"cart", "fd": 3, "type": 1, "flags": 0o100002, "inode": 4711, "position": 17,
         "fs": b"overlay", "path": b"a\x1b[2J"},
        {"pid": 4711, "comm": b"cart", "fd": 4, "type": 1, "flags": 0o100001, "deleted": True, "inode": 4712,
         "fs": b"ext4", "path": b"app.log/log/var/"},
        {"pid": 4711, "comm": b"cart", "fd": 5, "type": 4, "inode": 4713, "fs": b"pipefs"},
    ],
    "memtop": [
        {"usage": 240 << 20, "limit": 256 << 20, "rss": 200 << 20, "cache": 30 << 20, "peak": 256 << 20, "high": 3, "max": 17, "oom": 2, "oom_kill": 1},
        {"usage": 7 << 20, "rss": 1 << 20, "cache": 4096, "peak": DURATION_UNKNOWN, "high": DURATION_UNKNOWN, "oom": DURATION_UNKNOWN, "ended": True},
    ],
    "snapshot_mounts": [
        {"pid": 4711, "id": 36, "parent": 35, "source": b"overlay", "root": b"/", "target": b"/", "type": b"overlay", "options": b"rw,relatime", "fs_options": b"rw,lowerdir=/a:/b"},
        {"pid": 4711, "id": 37, "parent": 36, "source": b"/dev/vda", "root": b"/v\x1b[2J", "target": b"/data\n", "type": b"ext4", "options": b"ro", "propagation": 2},
    ],
    "snapshot_socket": [
        {"pid": 9, "comm": b"nginx", "type": 0, "state": 10, "received": 3, "unsent": 511, "name": b"",
         "src": (bytes(10) + b"\xff\xff" + bytes(4), 8080), "fd": 3, "inode": 4711},
        {"pid": 9, "comm": b"curl", "type": 0, "state": 1, "src": (CART, 44122), "dst": (WEB, 80), "unsent": 17, "fd": 4, "name": b""},
        {"pid": 9, "comm": b"app", "type": 6, "state": 10, "unsent": 4096, "fd": 5, "name": b"@a\x1b[2J"},
    ],
    "exitsnoop": [
        {"pid": 4711, "ppid": 1, "comm": b"sh", "pcomm": b"runc", "age": 3_210_000_000, "cpu": 1_234_567,
         "rss": 3 << 20, "read": 4096, "written": 17},
        {"pid": 4712, "ppid": 1, "comm": b"app", "result": 1, "code": 3, "age": 212_345},
        {"pid": 4713, "ppid": 1, "comm": b"app", "result": 2, "code": 143, "signal": 15, "killer": 1, "killer_comm": b"init"},
        {"pid": 4714, "ppid": 1, "comm": b"app", "result": 4, "code": 137, "signal": 9, "rss": 256 << 20},
        {"pid": 4715, "ppid": 1, "comm": b"app", "result": 2, "code": 163, "signal": 35},
    ],
}  # fmt: skip


def batch(gadget: Gadget, events: list[dict[str, Any]]) -> pb.Batch:
    """Events as an agent sends them."""
    schema, tail = gadget.schema, 1024
    kinds = {field.name: field.kind for field in schema.fields}
    data = bytearray()
    for number, event in enumerate(events):
        row = np.zeros(1, schema.dtype(schema.text_offset + tail))[0]
        row["timestamp"], row["cgroup_id"] = number * 1000, 7
        if "tid" in kinds:
            row["tid"] = event["pid"]
        text = b""
        for name in {"cwd", "file"} & set(kinds):
            row[name]["as_given"] = True
        for name in [name for name, kind in kinds.items() if kind in ABSOLUTE]:
            row[name]["directory"]["as_given"] = row[name]["path"]["as_given"] = True
        for name, value in event.items():
            if kinds[name] in ("endpoint", "some_endpoint"):
                row[name]["address"], row[name]["port"] = value
            elif "length" in (row[name].dtype.names or ()):
                row[name]["offset"], row[name]["length"] = len(text), len(value)
                if kinds[name] == "path":
                    row[name]["as_given"] = not value.endswith(b"/")
                text += value
            elif kinds[name] in ABSOLUTE and not value.endswith(b"/"):
                row[name]["path"] = (len(text), len(value), True, False)
                text += value
            elif kinds[name] == "full_path":
                row[name]["path"] = row["path"]
                row[name]["directory"] = (len(text), len(value), False, False)
                text += value
            else:
                row[name] = value
        if kinds.get("detail") == "privilege_detail":  # which says the same as the other members
            for part in row["detail"].dtype.names:
                row["detail"][part] = row[part]
        packed = bytearray(row.tobytes())
        packed[schema.text_offset :] = text.ljust(tail, b"\0")
        data += packed
    section = pb.Section(record_size=schema.text_offset + tail, count=len(events), rows=bytes(data))
    who = pb.Container(cgroup_id=7, namespace="shop", pod="cart-0", container="cart", id="a" * 64)
    peers = [pb.Peer(address=WEB, kind="svc", namespace="shop", name="web")]
    return pb.Batch(sections=[section], containers=[who], peers=peers, clock_offset_ns=CLOCK)


@pytest.mark.parametrize("form", ["columns", "wide", "json"])
@pytest.mark.parametrize("name", catalog.load())
def test_snapshot(name: str, form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version does not change what scripts read and people know unless that is meant."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    gadget = catalog.find(name)
    fields = choose_fields(gadget, form, "", [])
    output = make_output(form, fields, {})
    timed = Decoder("node-a", gadget.schema).rows(
        batch(gadget, EVENTS.get(name, ANY)), [field.name for field in fields], lambda table: None
    )
    output.start([("node-a", "shop", "cart-0", "cart", "a" * 64)])
    output.write([row for _, row, _ in timed])
    shown = capsys.readouterr().out
    snapshot = SNAPSHOTS / f"{name}.{form}"
    if os.environ.get("SNAPSHOTS") == "write":
        SNAPSHOTS.mkdir(exist_ok=True)
        snapshot.write_text(shown)
    assert shown == snapshot.read_text()


def test_documented() -> None:
    """Every field of every gadget is explained."""
    for gadget in catalog.load().values():
        own = [field for field in gadget.schema.fields if field.name != "text_length"]
        assert all(len(field.doc) > 5 for field in own), gadget.name
