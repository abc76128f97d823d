"""A gadget for packets is a folder, too, with a decoder of its own for what packets say."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Cli, events, wait_until
from tests.kernel.flows import serve, talk
from tests.kernel.scratch import Project
from tests.loaded import is_there, programs_of
from tests.pods import UNIFIED, Container

SOURCE = """
#define TEXT_SHORT 64
#include "packets.h"

PARAM(__u16, port, 53, "the server's port");

enum way {
	WAY_CAME,
	WAY_LEFT,
};
typedef enum way gadget_way_words;
typedef struct gadget_slice gadget_shout; /* kinds.py */

struct event {
	struct gadget_header header;
	gadget_way_words way DOC("came or left");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_shout said DOC("what it says");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

static __always_inline int passed(struct __sk_buff *skb, bool out)
{
	struct gadget_header header = {};
	struct packet_ends ends = {};
	struct event *event;

	if (packet_protocol(skb) != IPPROTO_UDP || !read_packet_ends(skb, out, &ends))
		return 1;
	if (ends.own.port != param_port && ends.peer.port != param_port)
		return 1;
	if (!gadget_fill_packet(&header, skb, out))
		return 1;
	event = gadget_reserve(&header);
	if (!event)
		return 1;
	event->way = out ? WAY_LEFT : WAY_CAME;
	event->src = ends.own;
	event->dst = ends.peer;
	event->said = text_packet(&event->header, event->text, skb, ends.payload, TEXT_SHORT);
	gadget_send(event);
	return 1;
}

SEC("cgroup_skb/egress")
int left(struct __sk_buff *skb)
{
	return passed(skb, true);
}

SEC("cgroup_skb/ingress")
int came(struct __sk_buff *skb)
{
	return passed(skb, false);
}

char LICENSE[] SEC("license") = "GPL";
"""
KINDS = '''
"""What datagrams say."""

from gadget.kinds.texts import Parsed


class Shout(Parsed):
    """It is loud."""

    def read(self, data: bytes) -> str:
        """In capitals."""
        return data.decode("ascii").upper()


KINDS = (Shout("shout"),)
'''
ABOUT = """
title = "datagrams of a port"
group = "Live"
example = "kubectl gadget datagrams --port 53"
columns = ["pid", "comm", "way", "src", "dst", "said"]
wide = ["uid"]
"""
PORT = 5353


def pids(container: Container) -> set[int]:
    procs = UNIFIED / container.cgroup.lstrip("/") / "cgroup.procs"
    return {int(line) for line in procs.read_text().split()}


def test_packets(tmp_path: Path, start_agent, start_cli: Callable[..., Cli], pair) -> None:
    """A folder with a program for packets shows each packet of both ends, of chosen containers alone, with its process."""
    project = Project(
        tmp_path / "project", "datagrams", {"gadget.toml": ABOUT, "datagrams.bpf.c": SOURCE, "kinds.py": KINDS}
    )
    project.build()
    cart, web = pair
    agent = start_agent(under=project.under)
    server = serve(web, "udp", PORT)
    (server_pid,) = (pid for pid in pids(web) if "talks" in Path(f"/proc/{pid}/comm").read_text())

    before = programs_of(agent.process.pid)

    def start(*args: str) -> Cli:
        started = agent.log.read_text().count("datagrams: started")
        command = ("datagrams", "--agent", agent.address, "-o", "json", "--port", str(PORT))
        cli = start_cli(*command, *args, env={**os.environ, **project.environment})
        wait_until(lambda: agent.log.read_text().count("datagrams: started") > started, "the stream's start")
        return cli

    every, shop, of_server, loud = (
        start(),
        start("-n", "shop"),
        start("--pid", str(server_pid)),
        start("--filter", "said==A*"),
    )
    programs = programs_of(agent.process.pid)
    talk(cart, "ask", "udp", "10.77.0.2", PORT, 5)
    talk(cart, "ask", "udp", "fd77::2", PORT, 7)
    talk(cart, "tell", "udp", "10.77.0.2", PORT, 17)
    with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        here.bind(("127.0.0.1", PORT))
        there.sendto(b"outside", here.getsockname())
        assert here.recv(100) == b"outside"
    rows = {}
    for name, cli in {"every": every, "shop": shop, "of_server": of_server, "loud": loud}.items():
        out, err = cli.finish()
        assert "nothing lost" in err, err
        rows[name] = events(out)
    server.kill()
    server.wait()

    asked = 2 * (5 + 7)  # each socket asks twice
    ways = Counter((row["pod"], row["way"]) for row in rows["every"])
    assert ways == {
        ("cart-0", "left"): asked + 17, ("cart-0", "came"): asked,
        ("web-0", "came"): asked + 17, ("web-0", "left"): asked,
    }  # fmt: skip
    assert {row["comm"] for row in rows["every"]} == {"talks"}
    assert {row["pid"] for row in rows["every"] if row["pod"] == "web-0"} == {server_pid}
    assert len({row["pid"] for row in rows["every"] if row["pod"] == "cart-0"}) == 3
    assert {row["uid"] for row in rows["every"]} == {0}
    assert {(row["src"]["addr"], row["dst"]["port"]) for row in rows["every"] if row["pod"] == "cart-0"} == {
        ("10.77.0.1", PORT),
        ("fd77::1", PORT),
    }
    assert all(row["said"] and row["said"].isupper() for row in rows["every"])
    assert Counter(row["way"] for row in rows["shop"] if row["namespace"] == "shop") == {
        "left": asked + 17,
        "came": asked,
    }
    assert {row["namespace"] for row in rows["shop"]} == {"shop"}
    assert Counter(row["way"] for row in rows["of_server"]) == {"came": asked + 17, "left": asked}
    assert Counter(row["way"] for row in rows["loud"]) == {"came": 2 * asked, "left": 2 * asked}
    wait_until(lambda: programs_of(agent.process.pid) == before, "the end of the runs")
    wait_until(lambda: not any(is_there("prog", each) for each in programs - before), "the end of all programs")
