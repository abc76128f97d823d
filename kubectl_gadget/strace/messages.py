"""Arrays of buffers and struct msghdr, as strace writes them."""

from __future__ import annotations

from collections.abc import Callable
from struct import error as struct_error
from struct import unpack_from

from gadget import syscalls
from gadget.syscalls import Capture, How
from kubectl_gadget.strace.calls import Call, Captured
from kubectl_gadget.strace.decoders import ArgumentDecoder, Meaning, buffer_text, captured, text_of, used
from kubectl_gadget.strace.scalars import enumeration, quote
from kubectl_gadget.strace.structures import credentials, ints, sockaddr

_HEADER = 16  # of struct cmsghdr, which is aligned to 8


def _kept(call: Call, index: int, found: Captured, capture: Capture) -> list[tuple[Captured, int]]:
    """The buffers that were kept, in their order without a gap: each with how many of its bytes the call used.

    Which is all of them if the list is as long as found.buffers.
    """
    first = used(call, capture, found)
    left = (call.result or 0) - first if capture.after_success else None
    kept = [(Captured(b"", 0), 0)] * found.skipped + [(found, first)]
    while item := call.beyond.get((index, len(kept))):
        filled = item.size if left is None else max(0, min(item.size, left))
        left = None if left is None else left - filled
        kept.append((item, filled))
    return kept[: found.buffers]


def _buffers(call: Call, index: int, found: Captured, capture: Capture, limit: int) -> str:
    kept = _kept(call, index, found, capture)
    shown = [
        f"{{iov_base={buffer_text(item._replace(data=item.data[:filled], size=filled), limit)}, iov_len={item.size}}}"
        for item, filled in kept
    ]
    return f"[{', '.join([*shown, '...'] if found.buffers > len(shown) else shown)}]"


def _bytes(capture: Capture) -> Callable[[Call, int, Captured], object]:
    """The bytes of all kept buffers, up to the first one that is cut."""

    def joined(call: Call, index: int, found: Captured) -> object:
        data = b""
        for item, filled in _kept(call, index, found, capture):
            data += item.data[:filled]
            if filled > len(item.data):
                break
        return text_of(data)

    return joined


def vector(limit: int, capture: Capture) -> Meaning:
    """An array of buffers."""
    return lambda machine, argument: captured(
        lambda call, index, found: _buffers(call, index, found, capture, limit), _bytes(capture)
    )


def _control_data(kind: str, data: bytes, machine: str) -> str:
    if kind == "SCM_RIGHTS":
        return ints(data, machine)
    return credentials(data, machine) if kind == "SCM_CREDENTIALS" else quote(data)


_SCM = {"SCM_RIGHTS": 1, "SCM_CREDENTIALS": 2}  # socket(7); ABI


def control(call: Call, found: Captured) -> str:
    """Control messages: descriptors that are passed, who sends."""
    levels = syscalls.flags(call.machine, "SOL")
    shown, at = [], 0
    while at + _HEADER <= len(found.data):
        length, level, kind = unpack_from("<Qii", found.data, at)
        if length < _HEADER or at + length > len(found.data):
            break
        named = enumeration(_SCM, str)(kind) if level == levels["SOL_SOCKET"] else str(kind)
        told = _control_data(named, found.data[at + _HEADER : at + length], call.machine)
        head = f"cmsg_len={length}, cmsg_level={enumeration(levels, str)(level)}, cmsg_type={named}"
        shown.append(f"{{{head}, cmsg_data={told}}}")
        at += length + 7 & ~7
    return f"[{', '.join([*shown, '...'] if at < found.size else shown)}]"


def beyond(call: Call, index: int) -> dict[str, str]:
    """Address and control messages of a struct msghdr, as far as there are any and they were kept."""
    name, sent = call.beyond.get((index, "name")), call.beyond.get((index, "control"))
    found = {}
    try:
        if name:
            found["msg_name"] = sockaddr(name.data, call.machine)
        if sent:
            found["msg_control"] = control(call, sent)
    except (struct_error, ValueError):
        pass
    return found


def _header(call: Call, index: int, found: Captured, capture: Capture, limit: int) -> str:
    more = beyond(call, index)
    parts = [f"msg_iov={_buffers(call, index, found, capture, limit)}", f"msg_iovlen={found.buffers}"]
    if "msg_name" in more:
        parts[:0] = [f"msg_name={more['msg_name']}", f"msg_namelen={call.beyond[index, 'name'].size}"]
    if "msg_control" in more:
        size = call.beyond[index, "control"].size
        parts += [f"msg_control={more['msg_control']}", f"msg_controllen={size}"]
    return f"{{{', '.join(parts)}}}"


def message(limit: int, capture: Capture) -> Meaning:
    """A struct msghdr."""
    return lambda machine, argument: captured(
        lambda call, index, found: _header(call, index, found, capture, limit), _bytes(capture)
    )


def messages(machine: str, argument: syscalls.Argument) -> ArgumentDecoder:
    """An array of struct mmsghdr. Only its first one was kept."""
    capture = Capture(1, How.MESSAGE)

    def show(call: Call, index: int, found: Captured) -> str:
        first = f"{{msg_hdr={_header(call, index, found, capture, 1 << 30)}, ...}}"
        return f"[{first}, ...]" if call.args[2] & 0xFFFFFFFF > 1 else f"[{first}]"

    return captured(show, _bytes(capture))
