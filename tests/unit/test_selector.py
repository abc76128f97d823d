from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.identity import Container
from agent.selection import Selection
from gadget.errors import UsageError
from gadget.selector import parse_labels, parse_names, parse_recorded

CART = {"app": "cart", "tier": "back", "example.com/team": "a", "generation": "7"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=cart", True),
        ("app==cart", True),
        ("app=web", False),
        ("app!=web", True),
        ("app!=cart", False),
        ("other!=x", True),
        ("app", True),
        ("!app", False),
        ("other", False),
        ("!other", True),
        ("app in (web, cart)", True),
        ("app in (web)", False),
        ("app notin (web,db)", True),
        ("app notin (cart)", False),
        ("other notin (x)", True),
        ("other in (x)", False),
        ("app=cart,tier=back", True),
        ("app=cart,tier!=back", False),
        ("app in (cart,web),!other,tier", True),
        ("example.com/team=a", True),
        ("app=", False),
        ("other=", False),
        ("generation>6", True),
        ("generation > 7", False),
        ("generation<8,app", True),
        ("generation<7", False),
        ("app>1", False),
        ("other<1", False),
    ],
)
def test_label_selector(selector: str, matches: bool) -> None:
    """-l takes Kubernetes' own grammar, and means what it means there."""
    assert all(item.matches(CART) for item in parse_labels(selector)) is matches


@pytest.mark.parametrize(
    "selector",
    [
        "=",
        "app=cart=x",
        "app in cart",
        "app in (a",
        "!app=x",
        "a b",
        "app>x",
        "app>",
        "!a>1",
        "a=b,",
        "app in (a!)",
        "a" * 64,
        "a=" + "b" * 64,
    ],
)
def test_wrong_selector(selector: str) -> None:
    """A selector that is none is refused, with the grammar."""
    with pytest.raises(UsageError, match="want k=v"):
        parse_labels(selector)


@given(st.text(alphabet="ab=!,() in\t/.-", max_size=24))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    """Whatever I type after -l, it works or is refused as wrong usage."""
    with contextlib.suppress(UsageError):
        [item.matches(CART) for item in parse_labels(text)]


@pytest.mark.parametrize(
    ("items", "chosen"),
    [
        ([], "abc"),
        (["a"], "a"),
        (["a,b"], "ab"),
        (["a", "b"], "ab"),
        (["!a"], "bc"),
        (["a,b", "!b"], "a"),
        ([" a , "], "a"),
    ],
)
def test_names(items: list[str], chosen: str) -> None:
    """-n a,b chooses two, -n '!a' all but one, and options add up."""
    assert [name for name in "abc" if parse_names(items).matches(name)] == list(chosen)


@pytest.mark.parametrize(
    ("text", "namespaces"),
    [("all", []), (" off ", None), ("shop", ["shop"]), ("shop, web-2 ,shop", ["shop", "web-2"])],
)
def test_recorded(text: str, namespaces: list[str] | None) -> None:
    """--traceloop takes all, off, or namespaces, also with spaces between them."""
    found = parse_recorded(text)
    assert found == (None if namespaces is None else frozenset(namespaces))


@pytest.mark.parametrize(
    "text", ["", " ", "OFF", "All", "shop,", "shop web", "all,shop", "off,shop", "-x", "shop*", "!a"]
)
def test_recorded_means_what_it_says(text: str) -> None:
    """A --traceloop that is none of those is refused: it would record nobody, or everybody."""
    with pytest.raises(UsageError, match=r"--traceloop .* is no namespace: want all, off, or names with commas"):
        parse_recorded(text)


def test_unknown_labels_decide_nothing() -> None:
    """A pod whose labels are not known is neither chosen nor left out by -l; one of another namespace is left out."""
    pod = Container("id", namespace="shop", pod="cart-0", name="cart", pod_uid="u")
    assert Selection(labels="app=cart").decide(pod, None) is None
    assert Selection(labels="app=cart").decide(pod, CART) is True
    assert Selection(["web"], labels="app=cart").decide(pod, None) is False
    assert Selection(["shop"], ["cart-0"], ["!istio-proxy"]).decide(pod, None) is True
