from __future__ import annotations

import pytest

from agent.bpf.features import missing_feature


@pytest.mark.parametrize(
    ("log", "feature"),
    [
        (
            "libbpf: prog 'x': failed to find kernel BTF type ID of 'no_such_tracepoint': -3\n"
            "libbpf: prog 'x': failed to prepare load attributes: -3\n",
            "the hook no_such_tracepoint",
        ),
        (
            "0: (85) call bpf_get_current_task#35\n1: <invalid CO-RE relocation>\n"
            "failed to resolve CO-RE relocation <byte_off> [6] struct task_struct___new.a.b (0:0 @ offset 0)\n",
            "struct task_struct.a.b",
        ),
        (
            "failed to resolve CO-RE relocation <type_size> [6] struct upid (0:0 @ offset 0)\n",
            "struct upid",
        ),
        ("0: (85) call unknown#175\ninvalid func unknown#175\n", "the BPF helper bpf_task_pt_regs (Linux 5.15)"),
        ("0: (85) call unknown#9999\ninvalid func unknown#9999\n", "the BPF helper number 9999"),
        ("18: (db) lock *(u64 *)(r1 +0) += r2\nBPF_STX uses reserved fields\n", "BPF atomics that return a value (Linux 5.12)"),
        (
            "processed 30024 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 9\n"
            "-- END PROG LOAD LOG --\n"
            "libbpf: prog 'call_returned': failed to load: -524\n",
            "a compiler for all of these BPF instructions (on arm64 Linux 5.18)",
        ),
        ("0: (85) call unknown#169\ninvalid func unknown#169\n", "the BPF helper bpf_timer_init (Linux 5.15)"),
        (
            "number of funcs in func_info doesn't match number of subprogs\n",
            "timers that call a function of the program (Linux 5.15)",
        ),
        (
            "libbpf: map 'calls_of_tasks': failed to create: Invalid argument(-22)\nlibbpf: failed to load object 'a'\n",
            "the storage of tasks (Linux 5.11)",
        ),
        ("R2 min value is negative, either use unsigned or 'var &= const'\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_missing(log: str, feature: str) -> None:
    """A kernel that is too old for a gadget is told by the feature that it lacks; a refusal of another kind is not."""
    assert missing_feature(log) == feature
