"""Reads BTF, the kernel's type format, from an ELF section's bytes.

Format: https://docs.kernel.org/bpf/btf.html. Only what a schema needs: sizes, members, names and decl tags.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MAGIC = 0xEB9F
(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC,
 FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)  # fmt: skip
_MODIFIERS = {VOLATILE, CONST, RESTRICT, TYPE_TAG}
_INT_SIGNED = 1


class BtfError(ValueError):
    """The bytes are not BTF, or BTF that this reader does not know."""


@dataclass(frozen=True)
class Member:
    """A struct member, or a variable of a section. offset in bytes."""

    name: str
    type_id: int
    offset: int
    size: int = 0


@dataclass
class Type:
    """One BTF type. size in bytes; target is the type pointed to, aliased or contained."""

    kind: int
    name: str
    size: int = 0
    target: int = 0
    count: int = 0
    signed: bool = False
    members: list[Member] = field(default_factory=list)
    values: dict[int, str] = field(default_factory=dict)


class Btf:
    """The types of one object. Raises BtfError if data is not well-formed BTF."""

    def __init__(self, data: bytes) -> None:
        try:
            self._parse(data)
        except (struct.error, ValueError) as error:
            raise BtfError(f"malformed BTF: {error}") from error
        used = [id_ for item in self.types for id_ in (item.target, *(member.type_id for member in item.members))]
        if any(id_ >= len(self.types) for id_ in used):
            raise BtfError("malformed BTF: a type that is not there")

    def _parse(self, data: bytes) -> None:
        magic, _version, _flags, header, type_at, type_length, string_at, string_length = struct.unpack_from(
            "<HBBIIIII", data
        )
        if magic != MAGIC:
            raise BtfError(f"not BTF: magic {magic:#x}")
        strings = data[header + string_at : header + string_at + string_length]
        types = data[header + type_at : header + type_at + type_length]
        self.types: list[Type] = [Type(0, "void")]
        self.tags: dict[tuple[int, int], str] = {}
        at = 0
        while at < len(types):
            at = self._parse_type(types, at, strings)

    def _parse_type(self, types: bytes, at: int, strings: bytes) -> int:
        def name_at(offset: int) -> str:
            return strings[offset : strings.index(b"\0", offset)].decode() if offset < len(strings) else ""

        name, info, size_or_type = struct.unpack_from("<III", types, at)
        at += 12
        kind, count, flag = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
        item = Type(kind, name_at(name), size=size_or_type)

        def entries(form: str) -> Iterator[tuple[int, ...]]:
            nonlocal at
            for _ in range(count):
                yield struct.unpack_from(form, types, at)
                at += struct.calcsize(form)

        if kind == INT:
            (encoding,) = struct.unpack_from("<I", types, at)
            item.signed = bool(encoding >> 24 & _INT_SIGNED)
            at += 4
        elif kind == ARRAY:
            item.target, _index, item.count = struct.unpack_from("<III", types, at)
            at += 12
        elif kind in (STRUCT, UNION):
            for member_name, target, bits in entries("<III"):
                item.members.append(Member(name_at(member_name), target, (bits & 0xFFFFFF if flag else bits) // 8))
        elif kind in (ENUM, ENUM64):
            for value_name, *parts in entries("<Ii" if kind == ENUM else "<III"):
                value = parts[0] if kind == ENUM else parts[0] | parts[1] << 32
                item.values[value] = name_at(value_name)
        elif kind == DATASEC:
            for target, offset, size in entries("<III"):
                item.members.append(Member("", target, offset, size))
        elif kind == FUNC_PROTO:
            list(entries("<II"))
        elif kind == DECL_TAG:
            (component,) = struct.unpack_from("<i", types, at)
            at += 4
            self.tags[size_or_type, component] = item.name
        elif kind in (PTR, TYPEDEF, VAR, FUNC, FWD, *_MODIFIERS):
            item.target, item.size = size_or_type, 0
            at += 4 if kind == VAR else 0
        elif kind != FLOAT:
            raise BtfError(f"unknown BTF kind {kind}")
        self.types.append(item)
        return at

    def strip(self, type_id: int, *, typedefs: bool = True) -> int:
        """The type behind const, volatile and, unless told otherwise, typedefs."""
        seen = 0
        while self.types[type_id].kind in _MODIFIERS or (typedefs and self.types[type_id].kind == TYPEDEF):
            type_id = self.types[type_id].target
            seen += 1
            if seen > len(self.types):
                raise BtfError("a type that contains itself")
        return type_id

    def size(self, type_id: int) -> int:
        """Size in bytes."""
        count = 1
        for _ in self.types:  # an array of arrays is no deeper than there are types
            item = self.types[self.strip(type_id)]
            if item.kind != ARRAY:
                return count * (8 if item.kind == PTR else item.size)
            count, type_id = count * item.count, item.target
        raise BtfError("an array that contains itself")

    def section(self, name: str) -> dict[str, Member]:
        """The variables of an ELF section by name."""
        for item in self.types:
            if item.kind == DATASEC and item.name == name:
                return {self.types[member.type_id].name: member for member in item.members}
        return {}

    def lengths(self, section: str) -> dict[str, int]:
        """How many entries each array of an ELF section has, by name."""
        arrays = {name: self.types[self.strip(item.type_id)].target for name, item in self.section(section).items()}
        return {name: self.types[self.strip(target)].count for name, target in arrays.items()}
