"""What rarer calls take: BPF, io_uring, Landlock, keys, System V objects, sets of descriptors."""

from __future__ import annotations

from struct import unpack_from

from gadget import syscalls
from gadget.syscalls import Argument
from kubectl_gadget.strace.calls import Call, Captured
from kubectl_gadget.strace.decoders import ArgumentDecoder, captured, scalar
from kubectl_gadget.strace.scalars import enumeration, hexadecimal, signed
from kubectl_gadget.strace.structures import flag_set


def bpf(machine: str, argument: Argument) -> ArgumentDecoder:
    """Union bpf_attr, of the two commands that make something."""
    commands = syscalls.flags(machine, "BPF")
    kinds = {name: enumeration(syscalls.flags(machine, name)) for name in ("BPF_MAP_TYPE", "BPF_PROG_TYPE")}

    def show(call: Call, index: int, found: Captured) -> str:
        command = call.args[index - 1] & 0xFFFFFFFF
        if command == commands["BPF_MAP_CREATE"]:
            kind, key, value, count = unpack_from("<4I", found.data)
            shown = f"map_type={kinds['BPF_MAP_TYPE'](kind)}, key_size={key}, value_size={value}, max_entries={count}"
        elif command == commands["BPF_PROG_LOAD"]:
            kind, count = unpack_from("<2I", found.data)
            shown = f"prog_type={kinds['BPF_PROG_TYPE'](kind)}, insn_cnt={count}"
        else:
            raise ValueError(command)
        return f"{{{shown}, ...}}"

    return captured(show)


def io_uring(data: bytes, machine: str) -> str:
    """Struct io_uring_params, up to its features."""
    flags, cpu, idle = unpack_from("<3I", data, 8)
    shown = f"flags={flag_set(machine, 'IO_URING_SETUP')(flags)}, sq_thread_cpu={cpu}, sq_thread_idle={idle}"
    return f"{{{shown}, ...}}"


def landlock_ruleset(data: bytes, machine: str) -> str:
    """Struct landlock_ruleset_attr, whose later members are about the network."""
    (access,) = unpack_from("<Q", data)
    more = ", ..." if len(data) > 8 else ""
    return f"{{handled_access_fs={flag_set(machine, 'LANDLOCK_ACCESS_FS')(access)}{more}}}"


def landlock_rule(data: bytes, machine: str) -> str:
    """Struct landlock_path_beneath_attr."""
    access, parent = unpack_from("<Qi", data)
    return f"{{allowed_access={flag_set(machine, 'LANDLOCK_ACCESS_FS')(access)}, parent_fd={parent}}}"


def key(machine: str, argument: Argument) -> ArgumentDecoder:
    """The key that keyctl is about: mostly its first argument."""
    known = syscalls.flags(machine, "KEYCTL")
    others = {known[name] for name in ("KEYCTL_JOIN_SESSION_KEYRING", "KEYCTL_DH_COMPUTE", "KEYCTL_SET_REQKEY_KEYRING",
              "KEYCTL_SESSION_TO_PARENT", "KEYCTL_GET_PERSISTENT", "KEYCTL_CAPABILITIES") if name in known}  # fmt: skip
    name = enumeration(syscalls.flags(machine, "KEY_SPEC"), str)

    def show(call: Call, index: int) -> str:
        plain = call.args[0] & 0xFFFFFFFF in others
        return hexadecimal(call.args[index]) if plain else name(signed(call.args[index], 32))

    return ArgumentDecoder(show, show)


def ipc_key(machine: str, argument: Argument) -> ArgumentDecoder:
    """A key of System V objects."""
    private = enumeration(syscalls.flags(machine, "IPC_KEY"), hexadecimal)
    return scalar(Argument(argument.name, "u32"), private)


def ipc_flags(machine: str, argument: Argument) -> ArgumentDecoder:
    """Flags, and permissions in the lowest bits."""
    names = flag_set(machine, "IPC_CREATE")

    def show(value: int) -> str:
        others = [names(value & ~0o777)] if value & ~0o777 else []
        return "|".join([*others, f"0{value & 0o777:03o}"] if value & 0o777 or others else ["000"])

    return scalar(Argument(argument.name, "u32"), show)


def offset(machine: str, argument: Argument) -> ArgumentDecoder:
    """Where in a file: -1 is where it is."""
    return scalar(Argument(argument.name, "loff_t"), str, keep=True)


def descriptor_list(data: bytes) -> str:
    """A set of file descriptors."""
    numbers = [at * 8 + bit for at, byte in enumerate(data) for bit in range(8) if byte >> bit & 1]
    return f"[{' '.join(map(str, numbers))}]"


def descriptors(machine: str, argument: Argument) -> ArgumentDecoder:
    """A set of file descriptors, if all of it was kept."""

    def show(call: Call, index: int, found: Captured) -> str:
        if found.size > len(found.data):
            raise ValueError("not all of it is known")
        return descriptor_list(found.data)

    return captured(show)
