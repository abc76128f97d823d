"""--redact: what matches is masked, and what cannot be matched as a whole does not leave the node."""

from __future__ import annotations

import numpy as np
import pytest

from agent.masking import Masker
from agent.run.masked import Masked, check_maskable
from agent.traceloop import rings
from agent.traceloop.redact import Redactor
from agent.traceloop.rings import Snapshot
from gadget import catalog, syscalls
from gadget.errors import Unsupported

CALL, MORE = (catalog.record("traceloop", name) for name in ("call", "more"))
KINDS = catalog.constants("traceloop", "kind")
KINDS_BEYOND = catalog.constants("traceloop", "beyond")
DATA = MORE.fields["data"][1]  # type: ignore[index]
ARGS = CALL.fields["args"][1]  # type: ignore[index]


def number_of(name: str) -> int:
    return next(number for number, call in syscalls.table("x86_64").items() if call.name == name)


def snapshot(*records: bytes) -> Snapshot:
    """A ring that holds records, at the positions from 1 on; of those that are empty another has taken the slot."""
    calls = b"".join(each for each in records if each and not each[0] & rings.MORE)
    more = b"".join(each for each in records if each and each[0] & rings.MORE)
    return Snapshot({}, np.frombuffer(bytearray(calls), CALL), np.frombuffer(bytearray(more), MORE), 0)


def call(position: int, text: bytes, *, kind: str = "KIND_CALL", syscall: str = "write", argument: int = 1) -> bytes:
    row = np.zeros(1, CALL)
    row["sequence"], row["shape"], row["number"] = position << 2, KINDS[kind] | 2 << 4, number_of(syscall)
    row["argument"], row["length"] = argument, len(text)
    data = bytearray(row.tobytes())
    data[ARGS + 16 : ARGS + 16 + len(text)] = text
    return bytes(data)


def more(position: int, owner: int, text: bytes, argument: int = 1, part: int = 0) -> bytes:
    row = np.zeros(1, MORE)
    row["sequence"], row["owner"] = position << 2 | rings.MORE, owner << 2
    row["argument"], row["part"], row["length"] = argument, part, len(text)
    data = bytearray(row.tobytes())
    data[DATA : DATA + len(text)] = text
    return bytes(data)


def sent(found: Snapshot, *patterns: str) -> bytes:
    """All that would leave the node."""
    whole = found.whole()
    Redactor(patterns or (r"password[ =]\S+",))(whole)
    return whole.calls.tobytes() + whole.more.tobytes()


def test_no_further_slots() -> None:
    """With --redact I see recordings whose texts are short, and those without any call."""
    assert b"..***************.." in sent(snapshot(call(1, b"..password=secret..")), "pass[^.]+")
    assert sent(snapshot()) == b""


def test_pieces() -> None:
    """A match is masked however it is cut up among slots."""
    left = sent(snapshot(call(1, b"say pass"), more(2, 1, b"word=sec"), more(3, 1, b"ret end")))
    assert b"say ****" in left and b"********" in left and b"*** end" in left
    assert b"sec" not in left


def test_orphans() -> None:
    """Text whose call is overwritten, or not written yet, stays on the node: alone, a pattern may not match it."""
    left = sent(snapshot(b"", more(2, 1, b"secret"), call(3, b"password="), more(4, 3, b"secret")))
    assert b"secret" not in left
    assert left.count(b"\0" * 60) and len(left) == 2 * rings.SLOT_BYTES


def test_arguments() -> None:
    r"""`--password \S+` matches an argument and the next one, of a program that was started and of one that was not."""
    words = b"cart\0--password\0hunter2\0--port\x0080\0"
    begun = snapshot(call(1, b"/bin/cart", kind="KIND_EXEC", syscall="execve", argument=0), more(2, 1, words))
    left = sent(begun, r"--password \S+")
    assert b"cart\0**********\0*******\0--port\x0080\0" in left
    failed = [more(2 + at, 1, word, part=at) for at, word in enumerate(words.split(b"\0")[:-1])]
    left = sent(snapshot(call(1, b"/bin/cart", syscall="execve", argument=0), *failed), r"--password \S+")
    assert b"hunter2" not in left and b"--password" not in left
    assert b"--port" in left


def test_nuls() -> None:
    """What matches across a NUL as it is in memory is masked too."""
    assert b"se" not in sent(snapshot(call(1, b"password=\0\x01se\0cret")), rb"password=\x00\x01.*".decode())


def test_several_buffers() -> None:
    """A secret that begins in one buffer of a call and goes on in the next is masked in both."""
    buffer = KINDS_BEYOND["BEYOND_BUFFER"] + 1
    found = snapshot(call(1, b"password=s", syscall="writev"), more(2, 1, b"3cret end", argument=1 | buffer << 3))
    shown = sent(found)
    assert b"**********" in shown and b"***** end" in shown and b"cret" not in shown


def test_rows_of_a_gadget() -> None:
    """What matches in the text of a gadget's rows is masked, in a copy: the rows may be the kernel's memory."""
    gadget = catalog.find("ttysnoop")
    text = b"token=s3cret and more"
    rows = np.zeros((2, gadget.schema.text_offset + len(text)), np.uint8)
    records = rows.view(gadget.schema.dtype(rows.shape[1]))[:, 0]
    records["data"]["length"] = len(text), 0
    rows[:, gadget.schema.text_offset :] = np.frombuffer(text, np.uint8)
    rows.flags.writeable = False
    (masked,) = Masked(gadget, Masker([r"(?<=token=)\S+"]))([rows])
    assert masked[0, gadget.schema.text_offset :].tobytes() == b"token=****** and more"
    assert rows[0, gadget.schema.text_offset :].tobytes() == text


def test_what_cannot_be_masked() -> None:
    """A switch that shows what comes letter by letter is refused; off it is not."""
    gadget = catalog.find("ttysnoop")
    check_maskable(gadget, {"input": "false"})
    with pytest.raises(Unsupported, match="--input of ttysnoop shows what cannot be masked: this agent has --redact"):
        check_maskable(gadget, {"input": "true"})
