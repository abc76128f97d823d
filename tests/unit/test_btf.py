from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hatch_build
from gadget import catalog
from gadget.btf import Btf, BtfError
from gadget.schema import Schema

SOURCE = """
#include "filter.h"
enum colour { RED = 3, BLUE = 5 };
struct event {
    struct gadget_header header;
    gadget_endpoint answers[3] DOC("who answered");
    gadget_comm names[2] DOC("what they are called");
    __u64 stack[4] DOC("where it was");
    enum colour colour DOC("which colour");
    __s16 depth DOC("how deep");
    __u8 hidden;
    char text[TEXT_MAX + TEXT_SLACK];
};
GADGET_EVENTS(1);
PARAM(__s32, level, -7, "the level");
SEC("tp_btf/sched_process_exec")
int probe(void *ctx)
{
    __u32 zero = 0;
    struct event *event = bpf_map_lookup_elem(&scratch, &zero);
    if (!event || !gadget_fill(&event->header))
        return 0;
    event->depth = param_level;
    gadget_submit(event);
    return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.bpf.c").write_text(SOURCE)
    (folder / "gadget.toml").write_text(
        'title = "a test"\ngroup = "Live"\nexample = "-"\ncolumns = ["colour"]\nwide = []\n'
    )
    hatch_build.compile_object(folder / "probe.bpf.c", "x86_64", folder / "probe.bpf.o")
    return hatch_build.describe(folder, (folder / "probe.bpf.o").read_bytes())


def test_schema_is_the_struct(entry: dict) -> None:
    """What I declare in C is what users see: names, kinds, help, enum values and defaults, with no second list."""
    schema = Schema.from_json(entry["schema"])
    assert [field.name for field in schema.shown][-2:] == ["colour", "depth"]
    assert (schema["colour"].kind, schema["colour"].values) == ("enum", {"3": "RED", "5": "BLUE"})
    assert (schema["depth"].signed, schema["depth"].size, schema["depth"].doc) == (True, 2, "how deep")
    level = entry["parameters"][-1]
    assert (level["name"], level["doc"], level["default"]) == ("level", "the level", "f9ffffff")


def test_lists_in_c(entry: dict) -> None:
    """An array in C is a list of whatever its elements are."""
    schema = Schema.from_json(entry["schema"])
    found = [
        (each.kind, each.count, each.size, len(each.parts))
        for each in map(schema.__getitem__, ("answers", "names", "stack"))
    ]
    assert found == [("endpoint", 3, 60, 2), ("comm", 2, 32, 0), ("int", 4, 32, 0)]
    assert schema.dtype(schema.text_offset)["names"].shape == (2,)


def test_every_field_is_documented() -> None:
    """Every field and option of every gadget has its help."""
    for gadget in catalog.load().values():
        for field in gadget.schema.fields:
            assert field.doc or field.name == "text_length", field.name
        assert all(parameter.doc for parameter in gadget.parameters)


def section() -> bytes:
    from elftools.elf.elffile import ELFFile

    path = Path(hatch_build.OBJECTS) / "x86_64" / "execsnoop.bpf.o"
    with path.open("rb") as file:
        return ELFFile(file).get_section_by_name(".BTF").data()


@given(st.data())
def test_damaged_btf_is_refused(data: st.DataObject) -> None:
    """A damaged object is refused as such, and never hangs or crashes the build."""
    whole = bytearray(section())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BtfError):
        types = Btf(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
        types.section(".maps")
        for number in range(len(types.types)):
            types.size(number)
