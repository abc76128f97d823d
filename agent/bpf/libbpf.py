"""libbpf 1.x by ctypes: the prototypes, and nothing else.

Header: bpf/libbpf.h of libbpf 1.1. Functions that return a pointer give NULL and errno on failure; functions
that return int give a negative errno.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from gadget.errors import Unsupported

PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_mem": (c_void_p, [c_void_p, c_size_t, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__type": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__map_flags": (c_uint32, [c_void_p]),
    "bpf_map__set_map_flags": (c_int, [c_void_p, c_uint32]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__autoload": (c_bool, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_program__section_name": (c_char_p, [c_void_p]),
    "bpf_program__attach_iter": (c_void_p, [c_void_p, c_void_p]),
    "bpf_program__attach_cgroup": (c_void_p, [c_void_p, c_int]),
    "bpf_program__attach_perf_event": (c_void_p, [c_void_p, c_int]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "btf__raw_data": (c_void_p, [c_void_p, POINTER(c_uint32)]),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__free": (None, [c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_iter_create": (c_int, [c_int]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_link__pin": (c_int, [c_void_p, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_obj_pin": (c_int, [c_int, c_char_p]),
    "bpf_map__inner_map": (c_void_p, [c_void_p]),
    "bpf_map__set_value_size": (c_int, [c_void_p, c_uint32]),
    "bpf_map_create": (c_int, [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_lookup_batch": (c_int, [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p]),
    "bpf_map_lookup_and_delete_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "libbpf_num_possible_cpus": (c_int, []),
    "libbpf_set_print": (c_void_p, [c_void_p]),
}

#: int (*)(enum libbpf_print_level, const char *format, va_list). x86_64 and arm64 both pass va_list as a pointer.
PRINT_FUNCTION = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
PRINT_WARN, PRINT_INFO, PRINT_DEBUG = range(3)


BPF_MAP_TYPE_ARRAY = 2
BPF_F_MMAPABLE = 1 << 10
BTF_KIND_STRUCT, BTF_KIND_FUNC = 4, 12


class MapCreateOptions(ctypes.Structure):
    """The head of struct bpf_map_create_opts (bpf/bpf.h)."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    )


class IterationOptions(ctypes.Structure):
    """struct bpf_iter_attach_opts (bpf/libbpf.h)."""

    _fields_ = (("sz", c_size_t), ("link_info", c_void_p), ("link_info_len", c_uint32))


class MapInfo(ctypes.Structure):
    """The head of struct bpf_map_info (linux/bpf.h)."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
    )


class ProgInfo(ctypes.Structure):
    """The head of struct bpf_prog_info (linux/bpf.h), down to what is read here."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32, 1),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
    )


@cache
def library() -> Any:
    """libbpf, with every prototype declared. Unsupported if it is not installed."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise Unsupported("libbpf.so.1 is missing: install libbpf 1.0 or later (Debian: libbpf1)") from None
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def check(result: int, what: str) -> int:
    """The result, unless it is negative: then OSError with what failed."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


@cache
def kernel_has(name: str) -> bool:
    """Whether the kernel's BTF has a struct or a function of that name."""
    lib = library()
    types = lib.btf__load_vmlinux_btf()
    if not types:
        return False
    kinds = (BTF_KIND_STRUCT, BTF_KIND_FUNC)
    found = any(lib.btf__find_by_name_kind(types, name.encode(), kind) > 0 for kind in kinds)
    lib.btf__free(types)
    return found


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map."""
    info = MapInfo()
    size = c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "map info")
    return info


def program_info(fd: int) -> ProgInfo:
    """What the kernel says of a loaded program; fields it does not know stay 0."""
    info = ProgInfo()
    size = c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "program info")
    return info


class LinkInfo(ctypes.Structure):
    """The head of struct bpf_link_info (linux/bpf.h), and room for its rest."""

    _fields_ = (("type", c_uint32), ("id", c_uint32), ("prog_id", c_uint32), ("rest", c_uint32 * 29))


def link_info(fd: int) -> LinkInfo:
    """What the kernel says of a link. OSError if it is none."""
    info = LinkInfo()
    size = c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "link info")
    return info


def program_maps(fd: int) -> set[int]:
    """The ids of the maps that a program uses."""
    ids = (c_uint32 * 64)()
    info = ProgInfo(nr_map_ids=len(ids), map_ids=ctypes.addressof(ids))
    size = c_uint32(ctypes.sizeof(info))
    check(library().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "program info")
    return set(ids[: info.nr_map_ids])
