"""A standing run as a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError
from gadget.standing import from_toml, to_toml
from tests.conftest import run_cli

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True), max_size=3)


@given(names, names, st.lists(words.filter(lambda word: word[0] != "!"), max_size=3), words, st.booleans(),
       st.integers(0, 1 << 40), st.integers(0, 1 << 30))  # fmt: skip
def test_there_and_back(
    namespaces: list[str], containers: list[str], pods: list[str], comm: str, failed: bool, keep: int, ring: int
) -> None:
    """What I give as options is what the file says, whatever is in a name."""
    comm = comm.encode()[:15].decode(errors="ignore").replace("\0", "") or "x"
    choices = [pb.PodChoice(pattern=each) for each in pods]
    choices.append(pb.PodChoice(labels="app=cart,tier!=db", namespace="shop", without=True))
    selection = pb.Selection(namespaces=namespaces, containers=containers, labels="a in (b, c)", any_of=choices)
    start = pb.Start(gadget="opensnoop", parameters={"failed": str(failed), "comm": comm}, selection=selection,
                     ring_bytes=ring)  # fmt: skip
    run = pb.Standing(name="bad-opens", start=start, keep_bytes=keep)
    assert from_toml("bad-opens", to_toml(run)) == run


def test_written_by_hand() -> None:
    """A file that I write by hand says what the options say, with a switch as true and a size as 64M."""
    text = 'gadget = "opensnoop"\nkeep = "64M"\nnamespaces = ["shop"]\npods = ["cart-*", "!cart-0"]\n'
    run = from_toml("x", f"{text}[parameters]\nfailed = true\npid = 7\n")
    assert (run.keep_bytes, dict(run.start.parameters)) == (64 << 20, {"failed": "True", "pid": "7"})
    assert [(each.pattern, each.without) for each in run.start.selection.any_of] == [
        ("cart-*", False),
        ("cart-0", True),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "Bad",
            'gadget = "opensnoop"',
            "'Bad' cannot name a run: want lower-case letters, digits, - and ., at most 63",
        ),
        ("../x", 'gadget = "opensnoop"', "'../x' cannot name a run"),
        ("x", "gadget = ", "x.toml: Invalid value (at end of document)"),
        ("x", "", "x.toml: Object missing required field `gadget`"),
        ("x", 'gadget = "opensnoop"\nkep = "1M"', "x.toml: Object contains unknown field `kep`"),
        ("x", 'gadget = "opensnop"', "x.toml: unknown gadget 'opensnop'"),
        ("x", 'gadget = "opensnoop"\nkeep = "much"', "x.toml: keep = 'much': want a size such as 64M"),
        ("x", 'gadget = "opensnoop"\n[parameters]\nfaild = true', "x.toml: opensnoop has no parameter 'faild': it has"),
        ("x", 'gadget = "opensnoop"\n[parameters]\npid = "me"', "x.toml: "),
        ("x", 'gadget = "opensnoop"\nlabels = "a b"', "x.toml: "),
    ],
)
def test_wrong(name: str, text: str, message: str) -> None:
    """A file that makes no sense is refused in one line that names it and says what is wrong."""
    with pytest.raises(UsageError) as refused:
        from_toml(name, text)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--name", "x"], "--name: of a standing run: with --detach"),
        (["--keep", "1M"], "--keep: of a standing run: with --detach"),
        (["--print-only"], "--print-only: of a standing run: with --detach"),
        (["--detach", "-o", "json"], "--output: give it to `kubectl gadget attach`"),
        (["--detach", "--filter", "pid>1"], "--filter: give it to `kubectl gadget attach`"),
        (["--detach", "--name", "No Name"], "'No Name' cannot name a run"),
    ],
)
def test_options(args: list[str], message: str) -> None:
    """Options that make no sense together are refused in one line that says where they belong."""
    done = run_cli("opensnoop", "--agent", "unix:///nowhere", *args)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_print_only() -> None:
    """--print-only gives the ConfigMap for my repository, and needs no cluster."""
    shown = run_cli("opensnoop", "--detach", "--name", "bad-opens", "--print-only", "-n", "shop", "--failed").stdout
    assert "name: gadget-runs\n" in shown
    assert '  bad-opens.toml: |\n    gadget = "opensnoop"\n    namespaces = ["shop"]\n' in shown
