"""Reads system calls from the kernel's public headers: numbers, prototypes, names of flags and of errors.

Needs the prototypes of linux-headers-*-common, both machines' headers of linux-libc-dev-*-cross, libc's names
for what the kernel's prototypes of sockets leave unnamed, and for calls newer than those headers the tables of
system-calls, which are generated from each kernel as it comes out. hatch_build.py writes what read() returns as JSON.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from system_calls import syscalls

#: machine (as uname says) to clang's target, which is also where Debian has its headers
TARGETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
#: as system-calls names them
NEWER = {"x86_64": "x86_64", "aarch64": "arm64"}
#: whose 32-bit programs each machine runs
COMPAT = {"x86_64": "i386", "aarch64": "arm"}
LIBC_SOCKET = Path("/usr/include/x86_64-linux-gnu/sys/socket.h"), Path("/usr/include/aarch64-linux-gnu/sys/socket.h")
#: uapi headers whose names are wanted
HEADERS = [
    "asm/errno",
    "asm/fcntl",
    "asm/ioctls",
    "asm/mman",
    "asm/poll",
    "asm/resource",
    "asm/siginfo",
    "asm/signal",
    "asm/socket",
    "asm/unistd",
    "linux/bpf",
    "linux/capability",
    "linux/close_range",
    "linux/eventfd",
    "linux/eventpoll",
    "linux/fadvise",
    "linux/falloc",
    "linux/fanotify",
    "linux/fcntl",
    "linux/fs",
    "linux/futex",
    "linux/in",
    "linux/in6",
    "linux/inotify",
    "linux/io_uring",
    "linux/ipc",
    "linux/keyctl",
    "linux/landlock",
    "linux/magic",
    "linux/membarrier",
    "linux/memfd",
    "linux/mman",
    "linux/mount",
    "linux/netlink",
    "linux/openat2",
    "linux/pidfd",
    "linux/prctl",
    "linux/ptrace",
    "linux/random",
    "linux/reboot",
    "linux/resource",
    "linux/sched",
    "linux/seccomp",
    "linux/signalfd",
    "linux/sockios",
    "linux/stat",
    "linux/tcp",
    "linux/time",
    "linux/timerfd",
    "linux/udp",
    "linux/wait",
    "linux/xattr",
]
#: headers of the kernel itself: some of the interface is only there. Preprocessed without what they include.
INTERNAL = ("socket", "net", "splice", "errno")
#: set: the headers it is in, and its names. Of several names of one value the first in the header is shown.
SETS = {
    "ACCESS": ("unistd.h", r"[RWX]_OK"),
    "ADDRESS_FAMILY": ("internal/socket.h", r"AF_(?!MAX)\w+"),
    "ARCH": ("asm/prctl.h", r"ARCH_\w+"),
    "AT": ("linux/fcntl.h", r"AT_(SYMLINK_\w+|NO_AUTOMOUNT|EMPTY_PATH|RECURSIVE)"),
    "AT_STATX": ("linux/fcntl.h", r"AT_STATX_(?!SYNC_TYPE)\w+"),
    "AT_ACCESS": ("linux/fcntl.h", r"AT_(SYMLINK_NOFOLLOW|EACCESS|EMPTY_PATH)"),
    "AT_UNLINK": ("linux/fcntl.h", r"AT_REMOVEDIR"),
    "BPF": ("linux/bpf.h", r"BPF_(MAP_(?!TYPE)\w+|PROG_(?!TYPE)\w+|OBJ_(?!NAME)\w+|BTF_\w+"
            r"|LINK_(?!TYPE)\w+|RAW_TRACEPOINT_OPEN|TASK_FD_QUERY"
            r"|ENABLE_STATS|ITER_CREATE|TOKEN_CREATE)"),
    "BPF_MAP_TYPE": ("linux/bpf.h", r"BPF_MAP_TYPE_\w+"),
    "BPF_PROG_TYPE": ("linux/bpf.h", r"BPF_PROG_TYPE_\w+"),
    "CAPABILITY": ("linux/capability.h", r"CAP_(?!LAST|TO_|OPT|EFF)\w+"),
    "CAP_AMBIENT": ("linux/prctl.h", r"PR_CAP_AMBIENT_\w+"),
    "CLOCK": ("linux/time.h", r"CLOCK_\w+"),
    "CLONE": ("linux/sched.h", r"CLONE_(?!ARGS)\w+"),
    "CLOSE_RANGE": ("linux/close_range.h", r"CLOSE_RANGE_\w+"),
    "EPOLL": ("linux/eventpoll.h", r"EPOLL(?!_)\w+"),
    "EPOLL_CREATE": ("linux/eventpoll.h", r"EPOLL_CLOEXEC"),
    "EPOLL_CTL": ("linux/eventpoll.h", r"EPOLL_CTL_\w+"),
    "EVENTFD": ("eventfd.h", r"EFD_(SEMAPHORE|CLOEXEC|NONBLOCK)"),
    "FADVISE": ("linux/fadvise.h", r"POSIX_FADV_\w+"),
    "FALLOC": ("linux/falloc.h", r"FALLOC_FL_(?!ALLOCATE)\w+"),
    "FAN": ("linux/fanotify.h", r"FAN_(?!MARK|CLASS|ALL|REPORT|EVENT|UNLIMITED|ENABLE|CLOEXEC|NONBLOCK|ALLOW|DENY"
            r"|AUDIT|NO|INFO|RESPONSE|CLOSE\b|MOVE\b|EPIDFD)\w+"),
    "FAN_MARK": ("linux/fanotify.h", r"FAN_MARK_(?!INODE)\w+"),
    "FCNTL": ("fcntl.h", r"F_(?!.*LCK|SEAL_|OWNER_|LINUX_)\w+"),
    "F_LOCK": ("fcntl.h", r"F_(RD|WR|UN)LCK"),
    "F_SEAL": ("fcntl.h", r"F_SEAL_\w+"),
    "FD": ("fcntl.h", r"FD_CLOEXEC"),
    "FILESYSTEM": ("linux/magic.h", r"\w+_(SUPER_)?MAGIC|\w+_MAGIC_NUMBER"),
    "FLOCK": ("asm-generic/fcntl.h", r"LOCK_\w+"),
    "FSCONFIG": ("linux/mount.h", r"FSCONFIG_\w+"),
    "FSMOUNT": ("linux/mount.h", r"FSMOUNT_\w+"),
    "FSOPEN": ("linux/mount.h", r"FSOPEN_\w+"),
    "FSPICK": ("linux/mount.h", r"FSPICK_\w+"),
    "FUTEX": ("linux/futex.h",
              r"FUTEX_(?!WAITERS|OWNER|TID|BITSET|OP_|CMD|32|WAITV|.*_PRIVATE\b|.*_FLAG|CLOCK)[A-Z_0-9]+"),
    "FUTEX_FLAG": ("linux/futex.h", r"FUTEX_(PRIVATE_FLAG|CLOCK_REALTIME)"),
    "INOTIFY": ("linux/inotify.h", r"IN_(?!CLOEXEC|NONBLOCK|ALL|CLOSE\b|MOVE\b)\w+"),
    "INOTIFY_INIT": ("linux/inotify.h", r"IN_(CLOEXEC|NONBLOCK)"),
    "IOCTL": ("asm(-generic)?/ioctls.h|linux/(sockios|fs).h",
              r"(TC|TIOC(?!PKT_|SER_)|FIO|SIOC|FI(?!LE)|FS_IOC_|BLK)\w+"),
    "IO_URING_ENTER": ("linux/io_uring.h", r"IORING_ENTER_\w+"),
    "IO_URING_REGISTER": ("linux/io_uring.h", r"IORING_(UN)?REGISTER_(?!LAST|USE_|SRC_|FILES_SKIP)\w+"),
    "IO_URING_SETUP": ("linux/io_uring.h", r"IORING_SETUP_\w+"),
    "IPC_CREATE": ("linux/ipc.h", r"IPC_(CREAT|EXCL|NOWAIT)"),
    "IPC_KEY": ("linux/ipc.h", r"IPC_PRIVATE"),
    "IP": ("linux/in.h", r"(IP|MCAST)_(?!PMTUDISC|DEFAULT)\w+"),
    "IPPROTO": ("linux/in.h", r"IPPROTO_(?!MAX)\w+"),
    "IPV6": ("linux/in6.h", r"IPV6_(?!FL_|FLOW|PRIO|PMTUDISC|TLV|PREFER)\w+"),
    "ITIMER": ("linux/time.h", r"ITIMER_\w+"),
    "MADVISE": ("mman(-common)?.h", r"MADV_\w+"),
    "MAP": ("mman(-common)?.h|hugetlb_encode.h",
            r"MAP_(?!SHARED|PRIVATE|TYPE|FILE|HUGE_|DROPPABLE|ANON\b|ABOVE4G)\w+"),
    "MAP_TYPE": ("mman(-common)?.h", r"MAP_(FILE|SHARED|PRIVATE|SHARED_VALIDATE|DROPPABLE)"),
    "MCL": ("mman(-common)?.h", r"MCL_\w+"),
    "MEMBARRIER": ("linux/membarrier.h", r"MEMBARRIER_CMD_(?!FLAG)\w+"),
    "MEMFD": ("linux/memfd.h", r"MFD_(?!HUGE_)\w+"),
    "MLOCK": ("mman(-common)?.h", r"MLOCK_\w+"),
    "MODE_TYPE": ("linux/stat.h", r"S_IF(?!MT)\w+"),
    "MOUNT": ("linux/mount.h", r"MS_(?!RMT|MGC)\w+"),
    "KEYCTL": ("linux/keyctl.h", r"KEYCTL_(?!CAPS|PKEY_|SUPPORTS|MOVE_E)\w+"
               r"|KEYCTL_PKEY_(QUERY|ENCRYPT|DECRYPT|SIGN|VERIFY)"),
    "KEY_SPEC": ("linux/keyctl.h", r"KEY_SPEC_\w+"),
    "LANDLOCK_ACCESS_FS": ("linux/landlock.h", r"LANDLOCK_ACCESS_FS_\w+"),
    "LANDLOCK_CREATE": ("linux/landlock.h", r"LANDLOCK_CREATE_RULESET_\w+"),
    "LANDLOCK_RULE": ("linux/landlock.h", r"LANDLOCK_RULE_\w+"),
    "MOUNT_ATTR": ("linux/mount.h", r"MOUNT_ATTR_(?!SIZE|_ATIME|.*ATIME$)\w+|MOUNT_ATTR_NODIRATIME"),
    "MOVE_MOUNT": ("linux/mount.h", r"MOVE_MOUNT_(?!_MASK)\w+"),
    "MREMAP": ("linux/mman.h", r"MREMAP_\w+"),
    "MSG": ("internal/socket.h", r"MSG_(?!EOF|SYN|FIN|TRYHARD|CMSG_COMPAT|INTERNAL|SENDPAGE|SPLICE|NO_SHARED)\w+"),
    "MSYNC": ("mman-common.h", r"MS_\w+"),
    "NETLINK": ("linux/netlink.h", r"NETLINK_(ROUTE|USERSOCK|FIREWALL|SOCK_DIAG|NFLOG|XFRM|SELINUX|ISCSI|AUDIT|CRYPTO"
                r"|FIB_LOOKUP|CONNECTOR|NETFILTER|IP6_FW|DNRTMSG|KOBJECT_UEVENT|GENERIC|SCSITRANSPORT|ECRYPTFS|RDMA|SMC)"),
    "OPEN": ("fcntl.h", r"O_(?!ACCMODE|RDONLY|WRONLY|RDWR|NDELAY)\w+|FASYNC|__O_SYNC"),
    "OPEN_ACCESS": ("fcntl.h", r"O_(RDONLY|WRONLY|RDWR|ACCMODE)"),
    "OPEN_TREE": ("linux/(mount|fcntl).h", r"OPEN_TREE_CLONE|AT_(RECURSIVE|EMPTY_PATH|NO_AUTOMOUNT|SYMLINK_NOFOLLOW)"),
    "PIDFD": ("linux/pidfd.h", r"PIDFD_(NONBLOCK|THREAD)"),
    "POLL": ("poll.h", r"POLL(?!_)\w+"),
    "PRCTL": ("linux/prctl.h",
              r"PR_(?!SET_MM_|SET_PTRACER_|SET_VMA_|SPEC|TAGGED|SYS|RISCV)"
              r"(SET|GET|CAPBSET|TASK|PAC_\w+_KEYS|SCHED_CORE\b"
              r"|MCE_KILL(_GET)?\b|CAP_AMBIENT\b|S[VM]E_[SG]ET_VL\b)\w*"),
    "PRIORITY": ("linux/resource.h", r"PRIO_(PROCESS|PGRP|USER)"),
    "PROT": ("mman(-common)?.h", r"PROT_\w+"),
    "PTRACE": ("ptrace(-abi)?.h", r"PTRACE_(?!EVENT|O_|EVENTMSG|.*_FL_|SYSCALL_INFO_|PEEKSIGINFO_)\w+"),
    "RANDOM": ("linux/random.h", r"GRND_\w+"),
    "REBOOT": ("linux/reboot.h", r"LINUX_REBOOT_CMD_\w+"),
    "RENAME": ("linux/fs.h", r"RENAME_\w+"),
    "RESOLVE": ("linux/openat2.h", r"RESOLVE_\w+"),
    "RLIMIT": ("resource.h", r"RLIMIT_\w+"),
    "RUSAGE": ("linux/resource.h", r"RUSAGE_(SELF|CHILDREN|THREAD)"),
    "RW": ("linux/fs.h", r"RWF_(?!SUPPORTED)\w+"),
    "SCHED": ("linux/sched.h", r"SCHED_(NORMAL|FIFO|RR|BATCH|ISO|IDLE|DEADLINE|EXT)"),
    "SECCOMP": ("linux/seccomp.h", r"SECCOMP_(SET_MODE|GET)_\w+"),
    "SECCOMP_FILTER": ("linux/seccomp.h", r"SECCOMP_FILTER_FLAG_\w+"),
    "SEEK": ("linux/fs.h", r"SEEK_(?!MAX)\w+"),
    "SHUTDOWN": ("internal/net.h", r"SHUT_\w+"),
    "SI": ("asm-generic/siginfo.h", r"SI_(?!FROM|MAX|PAD|ASYNCNL)[A-Z]+"),
    "SI_SIGBUS": ("asm-generic/siginfo.h", r"BUS_\w+"),
    "SI_SIGCHLD": ("asm-generic/siginfo.h", r"CLD_\w+"),
    "SI_SIGFPE": ("asm-generic/siginfo.h", r"FPE_\w+"),
    "SI_SIGILL": ("asm-generic/siginfo.h", r"ILL_\w+"),
    "SI_SIGIO": ("asm-generic/siginfo.h", r"POLL_\w+"),
    "SI_SIGSEGV": ("asm-generic/siginfo.h", r"SEGV_\w+"),
    "SI_SIGSYS": ("asm-generic/siginfo.h", r"SYS_\w+"),
    "SI_SIGTRAP": ("asm-generic/siginfo.h", r"TRAP_(?!PERF_FLAG)\w+"),
    "SIGNAL": ("asm(-generic)?/signal.h", r"SIG(?!STKSZ|RTM|IOT|POLL|_|LOST|UNUSED)\w+"),
    "SIGNALFD": ("linux/signalfd.h", r"SFD_\w+"),
    "SIGPROCMASK": ("signal-defs.h", r"SIG_(BLOCK|UNBLOCK|SETMASK)"),
    "SIG_FLAG": ("signal(-defs)?.h", r"SA_(?!NOMASK|ONESHOT|UNSUPPORTED)\w+"),
    "SOCKET_FLAG": ("internal/net.h", r"SOCK_(CLOEXEC|NONBLOCK)"),
    "SOCKET_TYPE": ("internal/net.h", r"SOCK_(STREAM|DGRAM|RAW|RDM|SEQPACKET|DCCP|PACKET)"),
    "SOL": ("socket.h", r"SOL_\w+"),
    "SO": ("asm(-generic)?/socket.h", r"SO_\w+"),
    "SPLICE": ("internal/splice.h", r"SPLICE_F_(?!ALL)\w+"),
    "STATX": ("linux/stat.h", r"STATX_(?!ATTR|_)\w+"),
    "TCP": ("linux/tcp.h", r"TCP_(NODELAY|MAXSEG|CORK|KEEP\w+|SYNCNT|LINGER2|DEFER_ACCEPT|WINDOW_CLAMP|INFO|QUICKACK"
            r"|CONGESTION|MD5SIG|THIN\w+|USER_TIMEOUT|REPAIR|REPAIR_QUEUE|REPAIR_OPTIONS|REPAIR_WINDOW|QUEUE_SEQ|FASTOPEN\w*|TIMESTAMP|NOTSENT_LOWAT|CC_INFO"
            r"|SAVED?_SYN|ULP|ZEROCOPY_RECEIVE|INQ|TX_DELAY)"),
    "TIMERFD": ("linux/timerfd.h", r"TFD_(CLOEXEC|NONBLOCK)"),
    "TIMERFD_SET": ("linux/timerfd.h", r"TFD_TIMER_\w+"),
    "TIMER_SET": ("linux/time.h", r"TIMER_ABSTIME"),
    "UDP": ("linux/udp.h", r"UDP_(CORK|ENCAP|NO_CHECK6_TX|NO_CHECK6_RX|SEGMENT|GRO)"),
    "UMOUNT": ("libc/mount.h", r"(MNT|UMOUNT)_\w+"),
    "WAIT": ("linux/wait.h", r"W(?!UNTRACED)[A-Z]+|__W[A-Z]+"),
    "WAIT_ID": ("linux/wait.h", r"P_\w+"),
    "XATTR": ("linux/xattr.h", r"XATTR_(CREATE|REPLACE)"),
}  # fmt: skip
#: Prototypes that no header has, or has without names.
UNNAMED = """
long sys_arch_prctl(int option, unsigned long addr);
long sys_clone(unsigned long flags, unsigned long stack, int __user *parent_tid, int __user *child_tid,
    unsigned long tls);
long sys_clone_aarch64(unsigned long flags, unsigned long stack, int __user *parent_tid, unsigned long tls,
    int __user *child_tid);
long sys_io_submit(aio_context_t ctx_id, long nr, struct iocb __user * __user *iocbpp);
long sys_iopl(unsigned int level);
long sys_modify_ldt(int func, void __user *ptr, unsigned long bytecount);
long sys_ppoll(struct pollfd __user *fds, unsigned int nfds, struct __kernel_timespec __user *timeout,
    const sigset_t __user *sigmask, size_t sigsetsize);
long sys_pselect6(int n, fd_set __user *inp, fd_set __user *outp, fd_set __user *exp,
    struct __kernel_timespec __user *timeout, void __user *sigmask);
long sys_rt_sigaction(int sig, const struct sigaction __user *act, struct sigaction __user *oact, size_t sigsetsize);
long sys_rt_sigreturn(void);
long sys_uname(struct new_utsname __user *name);
"""
#: calls whose function in the kernel has another name
FUNCTIONS = {"umount2": "umount", "stat": "newstat", "lstat": "newlstat", "fstat": "newfstat", "uname": "newuname",
             "sendfile": "sendfile64", "fadvise64": "fadvise64_64"}  # fmt: skip
#: what strerror has no words for: errors that the kernel keeps to itself, which a tracer sees
RESTARTS = {
    "ERESTARTSYS": "To be restarted if SA_RESTART is set",
    "ERESTARTNOINTR": "To be restarted",
    "ERESTARTNOHAND": "To be restarted if no handler",
    "ERESTART_RESTARTBLOCK": "Interrupted by signal",
}
_SUFFIXED = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b")
_OCTAL = re.compile(r"\b0(?=\d)")
_CAST = re.compile(r"\(\s*(?:__force\s+)?(?:unsigned\s+)?(?:__poll_t|__u\d+|__s\d+|int|long|__kernel_\w+)\s*\)")
_SIZES = {"char": 1, "short": 2, "int": 4, "unsigned int": 4, "long": 8, "size_t": 8, "__u32": 4, "__u64": 8}


def common_headers() -> Path | None:
    """Where the newest kernel's headers are."""

    def version(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.name)]

    return max(Path("/usr/src").glob("linux-headers-*-common"), key=version, default=None)


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


class Headers:
    """The macros and enumerators of one machine's headers."""

    def __init__(self, machine: str, common: Path, run: Callable[..., str]) -> None:
        target = TARGETS[machine]
        public = [common / "include" / "uapi", Path(f"/usr/{target}/include")]
        wanted = (*HEADERS, *(["asm/prctl"] if machine == "x86_64" else []))
        source = [f"#include <{name}.h>" for name in wanted if any((at / f"{name}.h").exists() for at in public)]
        # an older kernel has a header for itself that a newer one has for all: eventfd.h until 6.6
        older = {name.partition("/")[2] for name in wanted if f"#include <{name}.h>" not in source}
        for name in (*INTERNAL, *older):
            path = common / "include" / "linux" / f"{name}.h"
            if path.exists():
                place = "linux" if name in older else "internal"
                source += [f'# 1 "{place}/{name}.h"', self._alone(path)]
        source += ['# 1 "libc/unistd.h"', self._alone(Path("/usr/include/unistd.h"))]
        source += ['# 1 "libc/mount.h"', self._alone(_libc_socket().with_name("mount.h"))]
        text = run("clang", "-E", "-dD", "-w", "-target", target, "-nostdinc", "-x", "c", "-D__user=", "-D__force=",
                   "-D__LINUX_COMPILER_H", "-D__LINUX_COMPILER_TYPES_H",  # empties headers that uapi should not include
                   "-I", common / "include" / "uapi", "-I", f"/usr/{target}/include", "-idirafter",
                   common / "include", "-", stdin="\n".join(source))  # fmt: skip
        self.places: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._read(text)

    @staticmethod
    def _alone(path: Path) -> str:
        return re.sub(
            r"(?m)^\s*#\s*(include|if|ifdef|ifndef|else|elif|endif)\b.*", "", _without_comments(path.read_text())
        )

    def _read(self, text: str) -> None:
        place, code = "", []
        for line in text.splitlines():
            if line.startswith("#define "):
                name, _, value = line[8:].partition(" ")
                if "(" not in name and value.strip() != name:
                    self.places.setdefault(name, place)
                    self._texts[name] = value
            elif line.startswith("# "):
                place = line.split('"')[1]
                code.append(f"@{place}@")
            elif not line.startswith("#"):
                code.append(line)
        joined = re.sub(r"@[^@]*@(?=\s*@)", "", "\n".join(code))
        for place, block in re.findall(r"@([^@]*)@([^@]*)", joined):
            for body in re.findall(r"\benum\b[^{};()]*\{([^}]*)\}", block):
                self._enumerators(body, place)

    def _enumerators(self, body: str, place: str) -> None:
        previous = "-1"
        for item in body.split(","):
            name, _, value = (part.strip() for part in item.partition("="))
            if re.fullmatch(r"\w+", name):
                self.places.setdefault(name, place)
                previous = self._texts[name] = value or f"({previous})+1"

    def value(self, name: str, depth: int = 0) -> int | None:
        """What a name stands for, if it is a number."""
        text = self._texts.get(name)
        return None if text is None or depth > 20 else self.evaluate(text, depth)

    def evaluate(self, text: str, depth: int = 0) -> int | None:
        """A C expression's value, if it is one of numbers."""
        text = re.sub(r"_IO([RW]*)\(([^,()]+),([^,()]+),?([^()]*)\)", _ioctl, _without_comments(text))
        text = _CAST.sub("", text)
        text = re.sub(r"'(.)'", lambda found: str(ord(found[1])), text)
        text = _OCTAL.sub("0o", _SUFFIXED.sub(r"\1", text))
        unknown = False

        def look_up(found: re.Match[str]) -> str:
            nonlocal unknown
            value = self.value(found[0], depth + 1)
            unknown = unknown or value is None
            return str(value)

        text = re.sub(r"\b[A-Za-z_]\w*", look_up, text).strip()
        if unknown or not re.fullmatch(r"[0-9a-fA-Fox()|&~<>+\-*\s]+", text):
            return None
        try:
            value: int = eval(text, {"__builtins__": {}})
        except (SyntaxError, TypeError):
            return None
        return value

    def named(self, headers: str, names: str) -> dict[str, int]:
        """The names of that form that those headers define, in their order."""
        place, form = re.compile(rf"(?:^|/)(?:{headers})$"), re.compile(names)
        found = {
            name: self.value(name)
            for name, where in self.places.items()
            if form.fullmatch(name) and place.search(where)
        }
        return {name: value for name, value in found.items() if value is not None}


def _ioctl(found: re.Match[str]) -> str:
    """_IO, _IOR, _IOW, _IOWR as include/uapi/asm-generic/ioctl.h has them."""
    direction = 2 * ("R" in found[1]) + ("W" in found[1])
    size = _SIZES.get(found[4].strip()) if found[1] else 0
    return "?" if size is None else f"({direction << 30 | size << 16} | ({found[2]}) << 8 | ({found[3]}))"


def _libc_socket() -> Path:
    return next(path for path in LIBC_SOCKET if path.exists())


def _parameters(text: str) -> Iterator[list[str]]:
    """Each [name, type] of a prototype; the name is empty where there is none."""
    for item in text.split(",") if text.strip() not in ("", "void") else ():
        kind, star, name = item.replace("__restrict", " ").strip().rpartition("*")
        words = re.sub(r"\[.*?\]", "", name if star else item).split()
        named = bool(words) and (bool(star) or len(words) > 1) and words[-1] not in ("int", "long", "unsigned")
        rest = " ".join(words[:-1] if named else words)
        pointer = f"{' '.join(kind.replace('__user', ' ').split())} *" if star else ""
        yield [words[-1].lstrip("_") if named else "", (pointer or rest).replace("* *", "**").strip()]


def prototypes(common: Path, run: Callable[..., str]) -> dict[str, list[list[str]]]:
    """Arguments, as [name, type], of each function of the kernel that is a system call."""
    files = [common / "include" / folder / "syscalls.h" for folder in ("linux", "asm-generic")]
    source = "".join(re.sub(r"(?m)^\s*#\s*include\b.*", "", path.read_text()) for path in files)
    kernel = run("clang", "-E", "-P", "-w", "-x", "c", "-DBITS_PER_LONG=64", "-D__ARCH_WANT_SYS_UTIME",
                 "-D__user=", "-", stdin=source)  # fmt: skip
    pattern = r"long sys_(\w+)\((.*?)\);"
    found: dict[str, list[list[str]]] = {}
    for name, text in re.findall(pattern, _without_comments(UNNAMED + kernel), re.DOTALL):
        found.setdefault(name, list(_parameters(text)))
    libc = _without_comments(_libc_socket().read_text())
    for name, text in re.findall(r"extern \w+ (\w+) \(([^;]*?)\)[^;()]*(?:\(\([^;]*)?;", libc):
        names = [name for name, _ in _parameters(text)]
        if name in found and not all(old for old, _ in found[name]) and len(names) == len(found[name]):
            found[name] = [[old or new, kind] for new, (old, kind) in zip(names, found[name], strict=True)]
    return found


def _numbers_32bit() -> dict[str, dict[str, int]]:
    """The 32-bit calls of each machine."""
    return {machine: dict(syscalls().load_arch_table(other)) for machine, other in COMPAT.items()}


def _numbers(headers: dict[str, Headers]) -> dict[str, dict[str, int]]:
    """The calls of each machine. From 424 on numbers are the same on all, and one header may be older than another.

    Of calls that no header has the names are known.
    """
    all_numbers = {
        machine: {
            name.removeprefix("__NR_"): number
            for name, number in found.named(r"unistd(_64)?\.h", r"__NR_(?!syscalls|arch_specific|Linux)\w+").items()
        }
        for machine, found in headers.items()
    }
    common = {name: number for each in all_numbers.values() for name, number in each.items() if number >= 424}
    found = {}
    for machine, numbers in all_numbers.items():
        known = {**numbers, **common}
        table = syscalls().load_arch_table(NEWER[machine])
        taken = set(known.values())
        found[machine] = {**known, **{name: number for name, number in table.items() if number not in taken}}
    return found


def read(common: Path, run: Callable[..., str]) -> dict[str, Any]:
    """All of it, as plain data: numbers, arguments and sets of names by machine, and the errors."""
    functions = prototypes(common, run)
    headers = {machine: Headers(machine, common, run) for machine in TARGETS}
    machines = {}
    for machine, numbers in _numbers(headers).items():
        calls = {}
        for name, number in sorted(numbers.items(), key=lambda item: item[1]):
            candidates = (f"{name}_{machine}", FUNCTIONS.get(name, name), name)
            calls[number] = [name, next((functions[each] for each in candidates if each in functions), None)]
        sets = {name: headers[machine].named(*where) for name, where in SETS.items()}
        machines[machine] = {"calls": calls, "sets": sets, "compat": _compat(_numbers_32bit()[machine], functions)}
    return {"machines": machines, "errors": _errors(headers["x86_64"])}


#: 32-bit calls that take their arguments in another way than the 64-bit ones of their names
_OTHER_WAY = re.compile(r"mmap|select|clone|ipc|socketcall|.*64|sync_file_range|fanotify_mark|readahead|fallocate")


def _compat(
    numbers: dict[str, int], functions: dict[str, list[list[str]]]
) -> dict[int, tuple[str, list[list[str]] | None]]:
    """Names and arguments of 32-bit calls. A 64-bit argument takes two registers, so those that have one have none."""
    return {
        number: (name, None if _OTHER_WAY.fullmatch(name) else functions.get(name))
        for name, number in sorted(numbers.items(), key=lambda item: item[1])
    }


def _errors(headers: Headers) -> dict[str, list[str]]:
    numbers = headers.named("errno(-base)?.h", r"E[A-Z0-9]\w+")
    errors: dict[str, list[str]] = {}
    for name, number in numbers.items():
        errors.setdefault(str(number), [name, RESTARTS.get(name) or os.strerror(number)])
    return errors
