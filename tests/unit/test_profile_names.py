"""Names of functions, without a kernel: of files and maps that may be made to do harm."""

from __future__ import annotations

import os
import struct
import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.profile.elf import MOST_NAME, Functions, NotElf
from agent.profile.jit import JitFunctions
from agent.profile.kept import FileCache, identity
from agent.profile.kernel import KERNEL, KernelFunctions
from agent.profile.mappings import Mappings

SOURCE = r"""
__attribute__((noinline)) int outer(int a) { return a * 3; }
extern __typeof__(outer) other __attribute__((weak, alias("outer")));
int main(int argc, char **argv) { return outer(argc); }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with functions whose addresses nm knows."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "source.c").write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-o", folder / "program", folder / "source.c"], check=True)
    return folder / "program"


def functions_of(path: Path) -> tuple[Functions, int]:
    fd = os.open(path, os.O_RDONLY)
    return Functions(fd), fd


def test_functions_of_a_program(built: Path) -> None:
    """Each address of a program has the name that nm has for it, and what lies behind a function has none."""
    functions, fd = functions_of(built)
    table = subprocess.run(["nm", "-S", built], capture_output=True, text=True, check=True).stdout
    known = {line.split()[3]: line.split()[:2] for line in table.splitlines() if len(line.split()) == 4}
    begin, size = (int(each, 16) for each in known["main"])
    assert functions.find(begin, fd) == functions.find(begin + size - 1, fd) == "main"
    assert functions.find(begin + size, fd) != "main" and functions.find(begin - 1, fd) != "main"
    assert functions.find(int(known["outer"][0], 16), fd) == "outer"  # its other name is a weak one
    assert functions.find(0, fd) == functions.find((1 << 64) - 1, fd) == ""
    header = subprocess.run(["readelf", "-lW", built], capture_output=True, text=True, check=True).stdout
    (text,) = (line.split() for line in header.splitlines() if line.startswith("  LOAD") and " R E " in line)
    assert functions.address_of(int(text[1], 16) + 5) == int(text[2], 16) + 5
    assert functions.address_of(0) is None
    os.close(fd)


def test_functions_without_symbols(built: Path, tmp_path: Path) -> None:
    """Of a program from which the symbols were removed nothing is guessed."""
    subprocess.run(["strip", "-o", tmp_path / "bare", built], check=True)
    functions, fd = functions_of(tmp_path / "bare")
    assert {functions.find(address, fd) for address in range(0x1000, 0x1400)} == {""}
    os.close(fd)


@given(data=st.data())
def test_damaged_programs(built: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A program that is damaged, however, is read without an error, or is told to be none."""
    whole = bytearray(built.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, 64) | st.integers(0, len(whole) - 9))
        whole[at : at + 8] = data.draw(st.sampled_from([b"\xff" * 8, bytes(8), b"\0\0\0\0\xff\xff\xff\x7f"]))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    fd = os.open(path, os.O_RDONLY)
    try:
        functions = Functions(fd)
        for address in (0, 0x1000, 0x1139, 1 << 63, (1 << 64) - 1):
            assert len(functions.find(address, fd)) <= 4 * MOST_NAME + 1
            functions.address_of(address)
    except NotElf:
        pass
    finally:
        os.close(fd)


def test_a_large_program(tmp_path: Path) -> None:
    """A program of 300 MB with half a million functions is read within 2 s and 100 MB."""
    number, name = 500_000, b"_ZN4shop4cart%08d"
    path = tmp_path / "large"
    names = b"\0" + b"".join(name % at + b"\0" for at in range(number))
    length = len(name % 0) + 1
    symbols = b"".join(
        struct.pack("<IBBHQQ", 1 + at * length, 0x12, 0, 1, 0x1000 + at * 64, 64) for at in range(number)
    )
    size = 300_000_000
    at_symbols = size - len(symbols) - len(names) - 256
    with path.open("wb") as file:
        header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, size - 192, 0, 64, 56, 1, 64, 3, 0)
        file.write(b"\x7fELF\x02\x01\x01" + bytes(9) + header)
        file.write(struct.pack("<IIQQQQQQ", 1, 5, 0x1000, 0x1000, 0, number * 64, number * 64, 4096))
        file.seek(at_symbols)
        file.write(symbols + names)
        file.seek(size - 192 + 64)
        file.write(struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, at_symbols, len(symbols), 2, 0, 8, 24))
        file.write(struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at_symbols + len(symbols), len(names), 0, 0, 1, 0))
    tracemalloc.start()
    began = time.process_time()
    functions, fd = functions_of(path)
    took, most = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 2 and most < 100 << 20, (took, most)
    assert functions.find(0x1000 + 123_456 * 64 + 63, fd) == "_ZN4shop4cart00123456"
    assert functions.bytes < 16 << 20
    os.close(fd)


def test_maps_of_programs() -> None:
    """Of a process's mappings those are looked at that may be run; lines that make no sense are passed over."""
    found = Mappings(
        "555500000000-555500001000 r--p 00000000 fe:01 11 /app/cart\n"
        "555500001000-555500003000 r-xp 00001000 fe:01 11 /app/my cart (deleted)\n"
        "7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n"
        "nonsense\nz-z r-xp 0 0 0\n7ffe00000000-7ffe00002000 r-xp 00000000 00:00 0                          [vdso]\n"
    )
    assert [each.name for each in found.all] == ["/app/my cart (deleted)", "", "[vdso]"]
    cart, made, vdso = found.all
    assert (cart.is_anonymous, made.is_anonymous, vdso.is_anonymous) == (False, True, False)
    assert found.find(0x555500001000) is cart and found.find(0x555500002FFF) is cart
    assert found.find(0x555500003000) is None and found.find(0) is None
    assert cart.range == "555500001000-555500003000"


def test_maps_of_what_runs_made() -> None:
    """In a program's own map a later line replaces an earlier one of the place; others make no harm."""
    made = JitFunctions(
        b"1000 10 first\n2000 20 with spaces; and \xff\n1000 8 second\nzz 1 x\n-5 10 y\n3000\n"
        b"ffffffffffffffff ff z\n4000 0 empty\n5000 10 " + b"n" * 5000 + b"\n"
    )
    assert made.find(0x1000) == "second" and made.find(0x1008) == ""
    assert made.find(0x201F) == "with spaces; and \\xff" and made.find(0x2020) == ""
    assert made.find(0x4000) == "" and made.find(0xFFFFFFFFFFFFFFFF) == ""
    assert made.find(0x5001) == "n" * MOST_NAME


@given(st.binary(max_size=300))
def test_any_map_of_what_runs_made(data: bytes) -> None:
    """Whatever a container writes into such a map is read without an error."""
    made = JitFunctions(data)
    assert made.bytes > 0 and isinstance(made.find(0x1000), str)


def test_functions_of_the_kernel(tmp_path: Path) -> None:
    """Of the kernel I see functions and their modules; behind its code, and without a right to look, nothing."""
    path = tmp_path / "kallsyms"
    path.write_text(
        "ffffffff81000000 T _stext\nffffffff81000000 T startup\nffffffff81000100 t helper\n"
        "ffffffff81000100 T helper_alias\nffffffff81000180 D data\nffffffff81000200 T _etext\n"
        "ffffffffc0000000 t ext4_read\t[ext4]\n"
    )
    kernel = KernelFunctions(path)
    assert kernel.find(0xFFFFFFFF81000050) == ("startup", KERNEL)
    assert kernel.find(0xFFFFFFFF81000190) == ("helper", KERNEL)
    assert kernel.find(0xFFFFFFFF81000200) == ("", KERNEL)
    assert kernel.find(0xFFFFFFFFC0000010) == ("ext4_read", "[ext4]")
    assert kernel.find(0xFFFFFFFFC9000000) == ("", KERNEL) == kernel.find(5)
    path.write_text("0000000000000000 T startup\n0000000000000000 T helper\n")
    assert KernelFunctions(path).find(0xFFFFFFFF81000050) == ("", KERNEL)


class Thing:
    """What takes so much."""

    def __init__(self, size: int) -> None:
        self.bytes = size


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """What was read of files is read again only if they change, or if others took their room."""
    kept, reads = FileCache(100), list[str]()

    def take(name: str) -> None:
        fd = os.open(tmp_path / name, os.O_RDONLY)
        try:
            kept.get(Thing, identity(fd), lambda: reads.append(name) or Thing(40))
        finally:
            os.close(fd)

    for name in "abc":
        (tmp_path / name).write_text(name)
    for name in "abab":
        take(name)
    assert reads == ["a", "b"]
    take("c")  # takes the room of a, the least used
    take("b")
    assert reads == ["a", "b", "c"]
    take("a")
    assert reads == ["a", "b", "c", "a"]
    (tmp_path / "a").write_text("another one")
    take("a")
    assert reads[-1] == "a" and len(reads) == 5
