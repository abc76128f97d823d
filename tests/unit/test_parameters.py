"""A gadget's own options: from what a user writes to what the kernel reads."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from gadget import catalog
from gadget.errors import UsageError
from gadget.parameters import encode
from kubectl_gadget.options import gadget_options

GADGET = catalog.find("filemods")
OPS = next(item for item in GADGET.parameters if item.name == "ops")


@pytest.mark.parametrize(("text", "bits"), [("unlink", 1), ("rename, unlink", 3), ("unlink,unlink", 1), ("symlink", 8)])
def test_words_are_bits(text: str, bits: int) -> None:
    """I name one or several of an option's words, in any order, with commas between them."""
    assert int.from_bytes(encode(OPS, text), "little") == bits


def test_words_with_underscores() -> None:
    """I name a call as it is written, of a set that is 64 bits wide, too."""
    calls = next(item for item in catalog.find("detect").parameters if item.name == "calls")
    bits = {name: 1 << int(value) for value, name in calls.values.items()}
    assert len(bits) <= 8 * calls.size == 64
    assert int.from_bytes(encode(calls, "memfd_create,openat"), "little") == bits["memfd create"] | bits["openat"]
    with pytest.raises(UsageError, match="no 'memfd_made'"):
        encode(calls, "memfd_made")


@pytest.mark.parametrize("text", ["delete", "unlink,", "unlink;rename", "0", "UNLINK"])
def test_other_words_are_refused(text: str) -> None:
    """A word that an option has not is refused, with those that it has."""
    with pytest.raises(UsageError, match="some of unlink, rename, link"):
        encode(OPS, text)


def test_words_are_completed() -> None:
    """The shell completes the word after the last comma; help has all of them."""
    option = next(item for item in gadget_options(GADGET) if item.name == "param_ops")
    assert isinstance(option, click.Option)
    assert option.help
    assert "some of: unlink, rename," in option.help
    context = click.Context(click.Command("filemods"))
    assert [item.value for item in option.shell_complete(context, "unlink,re")] == [
        "unlink,removexattr",
        "unlink,rename",
    ]
    numbers = next(item for item in gadget_options(GADGET) if item.name == "param_pid")
    assert not numbers.shell_complete(context, "")


@pytest.mark.parametrize(("text", "nanoseconds"), [("10ms", 10**7), ("1m30s", 90 * 10**9), ("1.5us", 1500), ("7", 7)])
def test_durations_have_units(text: str, nanoseconds: int) -> None:
    """I write a time as I would say it."""
    time = replace(OPS, kind="duration", size=8)
    assert int.from_bytes(encode(time, text), "little") == nanoseconds


@pytest.mark.parametrize("text", ["ten", "-1ms", "10 parsecs", "99999999h"])
def test_what_is_no_duration(text: str) -> None:
    """What is no time, or a longer one than the kernel can count, is refused."""
    with pytest.raises(UsageError, match="not a duration"):
        encode(replace(OPS, kind="duration", size=8), text)
