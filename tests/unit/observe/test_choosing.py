"""observe: what its options choose."""

from __future__ import annotations

import pytest

from gadget import catalog, filters
from gadget.errors import UsageError
from gadget.schema import IDENTITY
from kubectl_gadget.observe.choosing import KINDS, of_contexts, of_domains, of_drops, of_ends, of_versions, of_words
from kubectl_gadget.observe.command import ObserveCommand
from tests.conftest import run_cli
from tests.unit.observe.flows import FLOWS, table

GADGET = catalog.find("observe")
BY_NAME = {kind.name: kind for kind in KINDS}


def chosen(conditions: list[str], node: str = "node-a") -> set[str]:
    """The flows, of a node, for which all conditions hold."""
    keep = filters.parse(filters.joined(conditions), GADGET.schema, IDENTITY)
    mask = keep(table(node))
    return {name for name, row in zip(FLOWS, [True] * len(FLOWS) if mask is None else mask, strict=True) if row}


@pytest.mark.parametrize(
    ("kind", "side", "values", "expected"),
    [
        ("pod", "", ["shop/cart"], {"cart asks web", "web answers cart"}),
        ("pod", "from", ["shop/cart"], {"cart asks web", "web answers cart"}),
        ("pod", "to", ["shop/cart"], set()),
        ("pod", "to", ["web"], {"cart asks web", "web answers cart", "db asks web6"}),
        ("pod", "to", ["front/"], {"cart asks web", "web answers cart", "db asks web6"}),
        ("pod", "", ["!cart"], {"db asks web6", "db asks world", "db asks service"}),
        ("pod", "", ["db,!web"], {"db asks world", "db asks service"}),
        ("namespace", "from", ["data"], {"db asks web6", "db asks world", "db asks service"}),
        ("namespace", "to", ["front"], {"cart asks web", "web answers cart", "db asks web6"}),
        ("ip", "to", ["203.0.113.0/24"], {"db asks world"}),
        ("ip", "", ["fd77::/64"], {"db asks web6"}),
        ("ip", "from", ["10.77.0.1"], {"cart asks web", "web answers cart"}),
        ("port", "to", ["8080"], {"cart asks web", "web answers cart", "db asks web6"}),
        ("port", "to", ["443,80"], {"db asks world", "db asks service"}),
        ("service", "to", ["shop/cart"], {"db asks service"}),
        ("service", "", ["nothing"], set()),
    ],
)
def test_ends(kind: str, side: str, values: list[str], expected: set[str]) -> None:
    """--from-… is about the end that began a flow, --to-… about the other, at whichever end it was seen; lists and ! work."""
    assert chosen(of_ends(BY_NAME[kind], side, values)) == expected


@pytest.mark.parametrize(
    ("side", "values", "expected"),
    [
        ("", ["east"], {*FLOWS}),
        ("to", ["e*t"], {*FLOWS} - {"db asks world"}),
        ("to", ["!east"], {"db asks world"}),
        ("from", ['we}st"'], set()),
        ("", ["east,we*"], {*FLOWS}),
    ],
)
def test_clusters(side: str, values: list[str], expected: set[str]) -> None:
    """--in-cluster, --from-cluster and --to-cluster choose by the context of the cluster that an end is in; ! leaves out."""
    find = of_contexts(["east", 'we}st"'])
    assert chosen(of_ends(BY_NAME["cluster"], side, values, find), node="east/node-a") == expected
    with pytest.raises(UsageError, match=r"--to-cluster 'north': there is east, we"):
        of_ends(BY_NAME["cluster"], "to", ["north"], find)


@pytest.mark.parametrize(
    ("items", "expected"),
    [(["6"], {"db asks web6"}), (["!v6"], {*FLOWS} - {"db asks web6"}), (["IPv4,6"], {*FLOWS}), ([], {*FLOWS})],
)
def test_versions(items: list[str], expected: set[str]) -> None:
    """--ip-version takes 4 and 6, also as Hubble writes them, and ! leaves out."""
    assert chosen(of_versions(items)) == expected


def test_drop_reason() -> None:
    """--drop-reason chooses by the kernel's word for why it dropped a packet, in any case, with - for _; ! leaves out."""
    context = ObserveCommand().make_context("observe", ["--drop-reason", "netfilter-drop,ip_*", "-A"])
    conditions = of_drops(GADGET, context.params["drop_reason"])
    assert conditions == ['(drop=="IP_*" or drop=="NETFILTER_DROP")']
    assert chosen(conditions) == set() and chosen(of_drops(GADGET, ["!netfilter-drop"])) == {*FLOWS}


def test_not() -> None:
    """--not leaves out what the option behind it chooses, and nothing else; it may stand before several."""
    command = ObserveCommand()
    args = ["--not", "--to-port", "443", "--pod", "db", "--not", "--verdict=refused", "-A"]
    context = command.make_context("observe", args)
    assert context.params["pod"] == ("db",)
    assert context.params["without"] == ("to_port=443", "verdict=refused")
    conditions = [
        *of_ends(BY_NAME["pod"], "", ["db"]),
        *(f"!({filters.joined(each)})" for each in (
            of_ends(BY_NAME["port"], "to", ["443"]), of_words(GADGET, "verdict", ["refused"])
        )),
    ]  # fmt: skip
    assert chosen(conditions) == {"db asks web6"}


def test_words() -> None:
    """Verdicts, types and protocols are named in any case, with - for a space; a word that there is not is an error."""
    assert chosen(of_words(GADGET, "verdict", ["NO-ANSWER,refused"])) == {"db asks world", "db asks service"}
    assert chosen(of_words(GADGET, "protocol", ["UDP"])) == {"db asks service"}
    assert chosen(of_words(GADGET, "verdict", ["!forwarded"])) == {"db asks world", "db asks service"}
    assert chosen(of_words(GADGET, "comm", ["odd name, really", "python"])) == {"cart asks web"}
    with pytest.raises(UsageError, match=r"--verdict .refusd.: did you mean refused"):
        of_words(GADGET, "verdict", ["refusd"])


def test_domains() -> None:
    """--dns chooses by the name that a flow was made for, in any case; a * stands for anything, ! leaves out."""
    assert chosen(of_domains(GADGET, ["API.stripe.com."])) == {"db asks world"}
    assert chosen(of_domains(GADGET, ["*.stripe.com.,web.example.com"])) == {"db asks world", "db asks web6"}
    assert chosen(of_domains(GADGET, ["*.*", "!*.cluster.local"])) == {"db asks world", "db asks web6"}


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--to-ip", "10.0.0.0/33"], "--to-ip '10.0.0.0/33': want an address such as 10.0.0.1, or a network"),
        (["--port", "http"], "--port 'http': want a port, 1 to 65535"),
        (["--pod", 'a"b'], "--pod 'a\"b': want NAME, its beginning, NAMESPACE/NAME or NAMESPACE/"),
        (["--last", "3", "--all"], "--last and --all: choose one"),
        (["-f", "--until", "5m"], "-f and --until: what comes has no end"),
        (["-f", "--first", "5"], "-f and --first: what comes has no end"),
        (["--since", "2026-13-01T00:00:00Z"], "is no time: want 2026-01-31T12:00:00Z, or 10m for so long ago"),
        (["--not"], "--not nothing: want what is left out, such as --not --to-port 53"),
        (["--not", "--since", "5m"], "--not --since 5m: want what is left out"),
        (["--not", "--to-port", "http"], "--to-port 'http': want a port, 1 to 65535"),
        (["-n", "shop", "-A"], "-n and -A: choose one"),
    ],
)
def test_wrong(args: list[str], error: str) -> None:
    """What makes no sense is refused in one line that says what would."""
    done = run_cli("observe", "--agent", "unix:///none", *args)
    assert done.returncode == 2
    assert error in done.stderr
    assert done.stderr.count("\n") == 1
