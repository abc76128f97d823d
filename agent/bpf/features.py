"""What a kernel lacks, from what it and libbpf say when they refuse an object."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Numbers of helpers (linux/bpf.h, enum bpf_func_id) that came after 5.10 and that programs here call.
_HELPERS = {
    107: "bpf_sk_storage_get at tracepoints (Linux 5.11)",
    158: "bpf_get_current_task_btf (Linux 5.11)",
    169: "bpf_timer_init (Linux 5.15)",
    175: "bpf_task_pt_regs (Linux 5.15)",
}


def _helper(found: re.Match[str]) -> str:
    return f"the BPF helper {_HELPERS.get(int(found[1]), f'number {found[1]}')}"


_SAID: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"failed to find kernel BTF type ID of '(\w+)'"), lambda found: f"the hook {found[1]}"),
    # "struct task_struct___new.no_such_member": what follows ___ is a name of ours
    (
        re.compile(r"failed to resolve CO-RE relocation <\w+> \[\d+\] (\w+ \w+?)(?:___\w+)?((?:\.\w+)*) "),
        lambda found: found[1] + found[2],
    ),
    (re.compile(r"(?:invalid|unknown) func \w+#(\d+)"), _helper),
    (re.compile(r"map '\w+_of_tasks': failed to create"), lambda found: "the storage of tasks (Linux 5.11)"),
    # kernel commit 5ca419f2864a, and how kernels before it and after it refuse an operation that they do not know
    (
        re.compile(r"BPF_STX uses reserved fields|BPF_ATOMIC uses invalid atomic opcode"),
        lambda found: "BPF atomics that return a value (Linux 5.12)",
    ),
    # kernels before 69c087ba6225 (5.13) do not see that a function is begun which nothing calls; timers are newer
    (
        re.compile(r"number of funcs in func_info doesn't match number of subprogs"),
        lambda found: "timers that call a function of the program (Linux 5.15)",
    ),
    # ENOTSUPP of bpf_prog_select_runtime: verified, not compiled, and no interpreter (CONFIG_BPF_JIT_ALWAYS_ON), as by
    # arm64's compiler, which knows no atomics that return a value before kernel commit 1902472b4fa9
    (
        re.compile(r"failed to load: -(?:524|ENOTSUPP)\b"),
        lambda found: "a compiler for all of these BPF instructions (on arm64 Linux 5.18)",
    ),
)


def missing_feature(log: str) -> str:
    """The feature that the kernel lacks, if it refused an object because of that; else empty."""
    for pattern, name in _SAID:
        if found := pattern.search(log):
            return name(found)
    return ""
