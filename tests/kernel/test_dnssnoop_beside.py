"""dnssnoop beside tshark: both read the same ten thousand questions and their answers."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import Cli, wait_until
from tests.dns_mix import AAAA, CNAME, END, TYPES, A, exchanges
from tests.live import rows_of, start_json, start_python_in
from tests.pods import Container

COUNT = 10_000
#: The last packets: END, and what closes the connection.
LAST_BYTES = 2000
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    16: "BADVERS",
    23: "BADCOOKIE",
}
FIELDS = (
    "dns.id", "dns.flags.response", "dns.flags.rcode", "dns.resp.ext_rcode", "dns.flags.truncated", "dns.qry.name", "dns.qry.type",
    "dns.count.answers", "dns.resp.type", "dns.a", "dns.aaaa", "dns.cname", "_ws.malformed",
)  # fmt: skip


class Said(NamedTuple):
    """A message, as one of both tells it. Addresses of each family stand in their order."""

    id: int
    message: str
    name: str
    type: str
    rcode: str | None
    a: tuple[str, ...]
    aaaa: tuple[str, ...]
    cnames: tuple[str, ...]


@contextmanager
def captured(container: Container, file: Path, interface: str = "gadget0") -> Iterator[None]:
    """All packets of a container's interface, until one that ends with END."""
    enter = ["nsenter", f"--net=/proc/{container.pid}/ns/net"]
    command = [*enter, "dumpcap", "-q", "-i", interface, "-B", "64", "-P", "-w", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        while not (line := process.stderr.readline()).startswith("File:"):
            assert line, "dumpcap has ended"
        yield
        wait_until(lambda: END in file.read_bytes()[-LAST_BYTES:], "the end of the capture")  # it writes with a delay
    finally:
        process.terminate()
        told = process.communicate(timeout=20)[1]
    assert f"{interface}': " in told and "/0 (" in told, told


def by_tshark(file: Path, ids: Set[int]) -> dict[tuple[int, str], tuple[Said, bool, bool]]:
    """Messages by id and direction, whether it was truncated, and whether tshark calls it malformed."""
    wanted = [word for field in FIELDS for word in ("-e", field)]
    command = ["tshark", "-n", "-r", str(file), "-Y", "dns", "-T", "fields", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        number, response, rcode, upper, cut, name, kind, count, types, a, aaaa, cnames, malformed = line.split("\t")
        if int(number, 16) not in ids:
            continue
        answers = [int(each) for each in types.split(",")[: int(count or 0)] if each]

        def of(kind: int, text: str, answers: list[int] = answers) -> tuple[str, ...]:
            return tuple(text.split(",")[: answers.count(kind)]) if text else ()

        said = Said(
            int(number, 16),
            "answer" if response == "1" else "question",
            name.replace("<Root>", "."),
            TYPES.get(int(kind or 0), kind),
            RCODES[int(rcode) | int(upper or "0", 0) << 4] if response == "1" else rcode or None,
            of(A, a),
            of(AAAA, aaaa),
            of(CNAME, cnames.replace("<Root>", ".")),
        )
        assert (said.id, said.message) not in found, said
        found[said.id, said.message] = said, cut == "1", bool(malformed)
    return found


def by_dnssnoop(row: dict[str, Any]) -> Said:
    addresses = [each for each in row["addresses"].split(", ") if each not in ("", "…", "malformed")]
    return Said(
        row["id"],
        row["message"],
        row["name"],
        row["type"],
        row["rcode"],
        tuple(each for each in addresses if ":" not in each),
        tuple(each for each in addresses if ":" in each),
        tuple(filter(None, row["cnames"].split(", "))),
    )


def begins(part: Said, whole: Said) -> bool:
    """Whether all of a message is as in another, but for answers behind a place."""
    same = part[:5] == whole[:5]
    return same and all(has == of[: len(has)] for has, of in zip(part[5:], whole[5:], strict=True))


def test_beside_tshark(agent, start_cli: Callable[..., Cli], pair, tmp_path: Path) -> None:
    """Of ten thousand questions of all types and their answers I see what tshark sees, and what is malformed is told as
    that.
    """
    cart, web = pair
    sent = dict(enumerate(exchanges(COUNT), 1))
    file = tmp_path / "dns.pcap"
    with start_python_in(web, "tests.dns_mix", "serve", str(COUNT)) as server, captured(cart, file):
        assert server.stdout and server.stdout.readline() == "ready\n"
        cli = start_json(start_cli, agent, "dnssnoop", "-p", "cart-0", "--buffer", "64M")
        with start_python_in(cart, "tests.dns_mix", "ask", str(COUNT)) as client:
            assert client.communicate(timeout=60)[0] == "done\n"
        assert server.wait(60) == 0
    rows = rows_of(cli)
    theirs = by_tshark(file, {number for number, each in sent.items() if each.sort in ("plain", "no answers")})

    # each message once, whatever is in it
    assert Counter((row["id"], row["message"]) for row in rows) == {
        (number, message): 1 for number in sent for message in ("question", "answer")
    }
    assert Counter(row["rcode"] for row in rows)["BADVERS"] > 50 < Counter(row["rcode"] for row in rows)["BADCOOKIE"]
    wrong: list[Any] = []
    cut = 0
    for row in rows:
        each, said = sent[row["id"]], by_dnssnoop(row)
        may_have_more = row["addresses"].endswith("…")
        if each.sort == "no question":
            asks = (each.answered if row["message"] == "answer" else each.asked)[5]  # how many questions it says it has
            if (row["type"], row["name"], row["addresses"]) != ("malformed" * asks, "", ""):
                wrong.append((each, said, row["addresses"]))
        elif each.sort == "no answers" and row["message"] == "answer":
            if not row["addresses"].endswith("malformed") or row["type"] != "A":
                wrong.append((each, said, row["addresses"]))
        elif each.sort in ("plain", "no answers"):
            whole, truncated, malformed = theirs[said.id, said.message]
            partial = bool(each.split) or len(each.answered) > 512
            if may_have_more and (truncated or (partial and row["message"] == "answer")):
                cut += 1
                fits = begins(said, whole) and (not truncated or partial or said == whole)
            else:
                fits = said == whole and not truncated
            if not fits or malformed or "malformed" in (row["type"], *row["addresses"].split(", ")):
                wrong.append((each, said, row["addresses"], whole))
    assert not wrong, f"{len(wrong)} differ: {wrong[:5]}"
    assert cut > 100
