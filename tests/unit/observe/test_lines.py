"""observe: how flows look."""

from __future__ import annotations

import pytest

from gadget.kinds.times import clock
from kubectl_gadget.observe.lines import FIELDS, FlowLines, amount
from kubectl_gadget.output import all_fields
from tests.unit.observe.flows import GADGET, table


def lines(capsysbinary: pytest.CaptureFixture[bytes]) -> list[str]:
    output = FlowLines(GADGET, all_fields(GADGET.schema))
    output.write(list(zip(*(table().column(name) for name in FIELDS), strict=True)))
    return capsysbinary.readouterr().out.decode().splitlines()


def test_lines(capsysbinary) -> None:
    """A flow is a line: when, which process of whom, to whom, what became of it; the domain where it says more than the end; bytes up are those of who began it."""
    assert [line.removeprefix(clock((at + 1) * 10**9)[:-3]) for at, line in enumerate(lines(capsysbinary))] == [
        " shop/cart-0 python[812] → front/web-0:8080 TCP FORWARDED begun in 310µs",
        " shop/cart-0 → front/web-0:8080 nginx[9] TCP FORWARDED 1.2 kB↑ 3.4 MB↓ 812ms rtt 210µs 2 sent again",
        " data/db-0 pg[7] → front/web-0:8080 web.example.com TCP FORWARDED 0 B↑ 0 B↓ reset",
        " data/db-0 pg[7] → 203.0.113.7:443 api.stripe.com TCP NO ANSWER after 7.0s",
        " data/db-0 → svc/shop/cart:80 UDP REFUSED",
    ]


def test_narrow(capsysbinary, monkeypatch) -> None:
    """On a narrow terminal a flow is still one line, that says who it is about and what became of it."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("kubectl_gadget.output.terminal.columns", lambda: 60)
    monkeypatch.setenv("NO_COLOR", "1")
    shown = lines(capsysbinary)
    assert max(map(len, shown)) <= 60
    assert shown[1].partition(" ")[2] == "shop/cart-0 → front/web-0:8080 TCP FORWARDED 1.2 k…"


def test_red(capsysbinary, monkeypatch) -> None:
    """On a terminal those that were not forwarded are red."""
    monkeypatch.setattr("kubectl_gadget.output.terminal.has_colours", lambda: True)
    assert [line.startswith("\x1b[31m") for line in lines(capsysbinary)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (100_003, "100 kB"), (999_600, "1.0 MB"),
     (3_400_000, "3.4 MB"), (1 << 63, "9.2 EB")],
)  # fmt: skip
def test_amount(size: int, text: str) -> None:
    """Bytes are shown in two or three digits."""
    assert amount(size) == text
