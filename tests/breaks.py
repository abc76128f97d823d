"""Programs that fire each default rule on system calls, in a container's image, and usual work beside each."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gadget.rules.default import files
from gadget.rules.fields import SYSCALL
from gadget.rules.ruleset import Rule, load
from tests.pods import BUSYBOX

#: A test does not load a module into the kernel of the machine: copies of these rules fire on a load that fails.
IN_VAIN = ("Kernel module from an unusual place is loaded", "Container loads a kernel module")
NOT_ALLOWED = "Connection to a destination that is not allowed"
SHELL = "Interactive shell in a container"
INSTALLS = "Package manager installs into a running container"
#: The shell that runs all lines of the cases, and its parent: as kubectl exec would start it.
HANDS = "sh /all.sh", "runc"
#: Programs of BusyBox under names of their own. The shell of Debian's runs its own by /proc/self/exe unless a path is given.
TOOLS = ["cat", "chmod", "chroot", "cp", "head", "ip", "ln", "ls", "mkdir", "mount", "mv", "nc", "nsenter", "rm", "sed", "sh", "sleep",
         "su", "tail", "touch", "true", "umount", "unshare"]  # fmt: skip
BY_PATH = "".join(f'{tool}() {{ /bin/{tool} "$@"; }}\n' for tool in TOOLS)
#: Programs that do what their arguments say.
SCRIPTS = ["/usr/bin/app", "/usr/bin/make", "/usr/bin/nmap", "/usr/bin/pip3",
           "/usr/bin/python3", "/usr/bin/redis-server", "/usr/bin/xmrig", "/usr/sbin/logrotate", "/usr/sbin/nginx",
           "/usr/sbin/useradd", "/bin/tini"]  # fmt: skip
SCRIPT = '#!/bin/sh\n. /tools\neval "$*"\n'
#: The workload, also under names of programs whose trade its calls are, and at other places.
BREAKS = [
    "/sbin/apk",
    "/usr/bin/apt-get",
    "/usr/bin/dpkg",
    "/bin/breaks",
    "/bin/cilium-agent",
    "/bin/python3.11",
    "/bin/sshd",
    "/opt/old",
    "/tmp/old",
]
#: Of a cloud, of the internet, and of a private network; all of them are the container's own.
ADDRESSES = ["169.254.169.254/32", "203.0.113.7/32", "10.1.2.3/32", "10.1.2.4/32", "10.1.2.5/32"]
SECRETS = "/run/secrets/kubernetes.io/serviceaccount"
CAPABILITIES = ["BPF", "CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_ADMIN", "NET_BIND_SERVICE", "PERFMON", "SETGID", "SETUID", "SYS_ADMIN",
                "SYS_CHROOT", "SYS_PTRACE"]  # fmt: skip
#: Files of the image; each folder that is needed has one.
FILES = ["/etc/cron.d/none", "/etc/group", "/etc/hostname", "/etc/nginx/nginx.conf", "/etc/passwd", "/etc/profile.d/none", "/etc/shadow",
         "/lib/modules/6/good.ko", "/mnt/none", "/opt/evil.ko", "/root/.ash_history", "/root/.ssh/id_rsa", "/root/.ssh/id_rsa.pub",
         f"{SECRETS}/ca.crt", f"{SECRETS}/token", "/usr/lib/python3/__pycache__/old.pyc", "/var/log/app.log", "/var/log/wtmp",
         "/dev/none", "/proc/none", "/sys/none"]  # fmt: skip


class Alert(NamedTuple):
    """What is expected of an alert. subject is the file, or the other end of the connection."""

    rule: str
    command: str
    subject: str = ""
    parent: str = "sh"


class Case(NamedTuple):
    """A command that fires a rule, what the alert says, usual work that fires none, and alerts of other rules."""

    rule: str
    attack: str
    alert: tuple[str, ...]
    twin: str
    also: tuple[Alert, ...] = ()

    @property
    def alerts(self) -> list[Alert]:
        return [Alert(self.rule, *self.alert), *self.also]


def by_shell(subject: str) -> tuple[str, str, str]:
    """What the script itself does."""
    return HANDS[0], subject, HANDS[1]


def not_allowed(command: str, subject: str) -> tuple[Alert, ...]:
    return (Alert(NOT_ALLOWED, command, subject),)


def connects(address: str, port: int, *more: str) -> tuple[str, tuple[str, str]]:
    command = " ".join(["breaks connect", address, str(port), *more])
    return command, (command, f"{address}:{port}")


CASES = (
    Case("File in a system folder is written", "echo x > /usr/bin/tool", by_shell("/usr/bin/tool"),
         "cat /usr/bin/app; python3 'echo x > /usr/lib/python3/__pycache__/a.pyc'; echo x > /opt/tool"),
    Case("File in a system folder is written", "breaks write /usr/bin/by-name apt-get", ("breaks write /usr/bin/by-name apt-get", "/usr/bin/by-name"),
         "dpkg write /usr/bin/by-dpkg any"),
    Case("File in a system folder is written", "ln -s /bin/breaks /opt/apt-get; /opt/apt-get write /usr/bin/by-link dpkg", ("apt-get write /usr/bin/by-link dpkg", "/usr/bin/by-link"), ""),
    Case("File in a system folder is written", "/opt/apt-get run 'echo x > /usr/bin/below-link; true'", ("sh -c echo x > /usr/bin/below-link; true", "/usr/bin/below-link", "apt-get"), ""),
    Case("File is moved or linked into a system folder", "mv /opt/tool /usr/bin/other", ("mv /opt/tool /usr/bin/other", "/usr/bin/other"),
         "echo x > /opt/b; mv /opt/b /opt/c; ln -s /usr/bin/app /opt/d"),
    Case("File is moved or linked into a system folder", "ln -s /opt/c /bin/app", ("ln -s /opt/c /bin/app", "/bin/app"), ""),
    Case("Library is loaded into every program", "echo > /etc/ld.so.preload", by_shell(""), "cat /etc/ld.so.preload"),
    Case("File that decides on logins or starts programs is written", "app 'echo x > /etc/cron.d/x'", ("app /usr/bin/app echo x > /etc/cron.d/x", "/etc/cron.d/x"),
         "cat /etc/passwd; useradd 'echo x >> /etc/passwd'"),
    Case("File below /etc is written by hand", "echo x > /etc/app.conf", by_shell("/etc/app.conf"), "app 'echo x > /etc/app.conf'; head /etc/app.conf"),
    Case("Key or credential file is read by hand", "cat /root/.ssh/id_rsa", ("cat /root/.ssh/id_rsa", "/root/.ssh/id_rsa"),
         "cat /root/.ssh/id_rsa.pub; app 'read line < /root/.ssh/id_rsa'; ls /root/.ssh"),
    Case("Password hashes are read", "cat /etc/shadow", ("cat /etc/shadow", "/etc/shadow"), "su -c true root; ls /etc/shadow; cat /etc/passwd"),
    Case("Token of the pod is read by hand", f"cat {SECRETS}/token", (f"cat {SECRETS}/token", f"{SECRETS}/token"),
         f"cat {SECRETS}/ca.crt; app 'read line < {SECRETS}/token'"),
    Case("Environment of other processes is read by hand", "cat /proc/1/environ", ("cat /proc/1/environ", "/proc/1/environ"),
         "cat /proc/1/status /proc/self/environ"),
    Case("Log of logins or of a shell is removed", "rm /var/log/wtmp", ("rm /var/log/wtmp", "/var/log/wtmp"),
         "rm /var/log/app.log; echo x >> /root/.ash_history; logrotate 'echo x > /var/log/wtmp; mv /var/log/wtmp /var/log/wtmp.1'"),
    Case("Log of logins or of a shell is removed", "ln -s /dev/null /root/.zsh_history", ("ln -s /dev/null /root/.zsh_history", "/root/.zsh_history"), ""),
    Case("Container asks for the credentials of its node", *connects("169.254.169.254", 80),
         "breaks connect 169.254.169.254 81; cilium-agent connect 169.254.169.254 80"),
    Case("Connection to a usual port of mining pools", *connects("203.0.113.7", 3333), "breaks connect 10.1.2.3 3333",
         not_allowed("breaks connect 203.0.113.7 3333", "203.0.113.7:3333")),
    Case(NOT_ALLOWED, *connects("203.0.113.7", 443), "breaks connect 10.1.2.3 443; breaks connect 127.0.0.1 443"),
    Case("Connection to a mining pool", "breaks resolve pool.supportxmr.com 10.1.2.5; breaks connect 10.1.2.5 8080", ("breaks connect 10.1.2.5 8080", "10.1.2.5:8080"),
         "breaks resolve api.example.com 10.1.2.4; breaks connect 10.1.2.4 8080"),
    Case("Mining program", "xmrig -o pool:3333", ("xmrig /usr/bin/xmrig -o pool:3333",), "xmrig --version; cat /usr/bin/xmrig"),
    Case("Network connection becomes the input or output of a process", *connects("10.1.2.3", 9000, "0"),
         "breaks connect 10.1.2.3 9001 20; breaks connect 127.0.0.1 9002 0; sshd connect 10.1.2.3 9003 0"),
    Case("Network tool gives a connection to a program", "nc 127.0.0.1 9 -e /bin/true", ("nc 127.0.0.1 9 -e /bin/true",),
         "nc 127.0.0.1 9; ls /bin/nc"),
    Case("Network scanner in a container", "nmap -p 1-99 10.1.2.3", ("nmap /usr/bin/nmap -p 1-99 10.1.2.3",), "nc -w 1 127.0.0.1 9; cat /usr/bin/nmap"),
    Case("File gets the rights of its owner", "chmod 4755 /opt/c", ("chmod 4755 /opt/c", "/opt/c"), "chmod 755 /opt/c; dpkg run '. /tools; chmod 4755 /opt/c'"),
    Case("Program leaves its container for the node", "nsenter true", ("nsenter true",), "chroot /srv /bin/none"),
    Case("Program leaves its container for the node", "chroot /host /bin/none", ("chroot /host /bin/none",), ""),
    Case("Process enters the namespaces of others", "breaks enter", ("breaks enter",), "breaks separate; cilium-agent enter"),
    Case("User namespace is made", "unshare -U true", ("unshare -U true",), "unshare -u true"),
    Case("Process takes hold of another", "breaks trace attach", ("breaks trace attach",), "breaks trace me"),
    Case(IN_VAIN[0], "breaks module /opt/evil.ko", ("breaks module /opt/evil.ko", "/opt/evil.ko"), "cat /opt/evil.ko"),
    Case(IN_VAIN[1], "breaks module /lib/modules/6/good.ko", ("breaks module /lib/modules/6/good.ko", "/lib/modules/6/good.ko"),
         "cat /lib/modules/6/good.ko"),
    Case("BPF program is loaded by a stranger", "breaks bpf load", ("breaks bpf load",), "breaks bpf map; cilium-agent bpf load"),
    Case("Container tells the kernel which program to run", "echo x > /tmp/release_agent", by_shell("/tmp/release_agent"),
         "cat /tmp/release_agent /proc/sys/kernel/core_pattern"),
    Case("Container speaks to the container runtime", "breaks speak /run/docker.sock", ("breaks speak /run/docker.sock", "/run/docker.sock"),
         "breaks speak /run/app.sock; cilium-agent speak /run/containerd.sock"),
    Case("Files of the node are reached through another process", "cat /proc/1/root/etc/hostname", ("cat /proc/1/root/etc/hostname", "/proc/1/root/etc/hostname"),
         "cat /proc/1/status /proc/1/root/tmp/release_agent /proc/self/root/etc/hostname"),
    Case("File is opened through a leaked directory", "cat /proc/self/fd/3/../etc/hostname 3< /etc", ("cat /proc/self/fd/3/../etc/hostname", "/proc/self/fd/3/../etc/hostname"),
         "cat /proc/self/fd/3/hostname 3< /etc; cat /etc/../etc/hostname"),
    Case("Disk of the node is opened by hand", "app 'touch /dev/sdz'; cat /dev/sdz", ("cat /dev/sdz", "/dev/sdz"), "cat /dev/null; ls /dev"),
    Case("Disk of the node is opened by hand", "mount /dev/sdz /mnt", ("mount /dev/sdz /mnt",), "mount -t tmpfs none /mnt; umount /mnt"),
    Case("Web server starts a shell", "nginx sh -c true; true", ("sh -c true", "", "nginx"), "nginx -t; sh -c nginx"),
    Case("Database starts a shell", "redis-server 'sh -c true; true'", ("sh -c true", "", "redis-server"), "redis-server -v; redis-server 'true; true'"),
    Case("Application starts a shell that takes commands from its input", "python3 'sh < /dev/null; true'", ("sh", "", "python3"), "python3 'sh -c true; true'"),
    Case("Program that the image does not have", "cp /bin/busybox /opt/new; /opt/new true", ("new true",), "/opt/old bpf map; cp /bin/busybox /opt/unused"),
    Case("Program that is in no file", "breaks memory", ("3",), "true"),
    Case("Program in a temporary folder", "/tmp/old bpf map", ("old bpf map",), "/opt/old bpf map"),
    Case("Software is built in a running container", "make all", ("make /usr/bin/make all",), "ls /usr/bin/make; cat /usr/bin/make"),
    Case(INSTALLS, "apk add curl", ("apk add curl",), "apk info; python3 -m pip list"),
    Case(INSTALLS, "pip3 install flask", ("pip3 /usr/bin/pip3 install flask",), "pip3 list; python3 -m http.server"),
)  # fmt: skip
#: The alerts of those who work in the container: a terminal, kubectl exec -i without one.
BY_PEOPLE = Alert(SHELL, "sh", parent="runc"), Alert(SHELL, "sh -l", parent="runc")
#: A start script of somebody's own.
LAUNCH = """#!/bin/sh
. /tools
sed -i s/a/b/ /etc/nginx/nginx.conf
cp /etc/hostname /etc/app.name
exec /docker-entrypoint.sh "$@"
"""
#: As the image of nginx begins: its script is the first process, and other scripts are called by it.
ENTRYPOINT = """#!/bin/sh
. /tools
echo 'server {}' > /etc/nginx/default.conf
sed -i s/a/b/ /etc/nginx/default.conf
/docker-entrypoint.d/10-listen.sh
exec /usr/sbin/nginx 'while [ ! -e /end ]; do sleep 1; done'
"""
LISTEN = "#!/bin/sh\n. /tools\ncp /etc/nginx/nginx.conf /etc/nginx/nginx.conf.old; echo x > /etc/profile.d/app.sh; rm /var/log/wtmp\n"
PACKAGE = """. /tools
echo x > /usr/bin/curl.new; mv /usr/bin/curl.new /usr/bin/curl; chmod 4755 /usr/bin/curl; ln -s curl /usr/bin/wget
echo x >> /etc/passwd; echo x > /etc/curlrc; echo x > /etc/cron.daily; cp /etc/shadow /etc/shadow-; sh -c "echo x > /etc/ssl"; true"""
#: What is started in a container every day.
EVERY_DAY = (
    ("/bin/sh", "-c", "test -e /ready"),
    ("/bin/true",),
    ("/bin/cat", "/etc/hostname", "/etc/passwd"),
    ("/bin/python3.11", "keep", "/usr/lib/python3/__pycache__/a.pyc"),
    ("/sbin/apk", "run", PACKAGE, "add", "curl"),
    ("/usr/bin/apt-get", "run", f"/usr/bin/dpkg run '{PACKAGE}'", "install", "curl"),
)  # fmt: skip


def image(root: Path, breaks: Path) -> None:
    """Make the files of an image: /all.sh does all of it, /calm.sh the usual work alone."""
    begin = [". /tools", "ip link set lo up", *(f"ip addr add {address} dev lo" for address in ADDRESSES)]
    whole = [*begin, *(line for case in CASES for line in (case.attack, case.twin))]
    texts = dict.fromkeys(FILES, "root:x:0:0:root:/root:/bin/sh\n") | dict.fromkeys(SCRIPTS, SCRIPT)
    texts |= {"/launch": LAUNCH, "/docker-entrypoint.sh": ENTRYPOINT, "/docker-entrypoint.d/10-listen.sh": LISTEN}
    texts |= {
        "/tools": BY_PATH,
        "/all.sh": "\n".join(whole),
        "/calm.sh": "\n".join([*begin, *(case.twin for case in CASES)]),
    }
    copies = dict.fromkeys(BREAKS, breaks) | dict.fromkeys(("/bin/busybox", "/host/bin/none", "/srv/bin/none"), BUSYBOX)
    for path in (*texts, *copies):
        file = root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        if path in texts:
            file.write_text(texts[path])
            file.chmod(0o755)
        else:
            shutil.copy(copies[path], file)
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    (root / "var/run").symlink_to("/run")  # where Kubernetes mounts the token of a pod


def rules() -> dict[str, Rule]:
    """The default rules on system calls, by name."""
    return {rule.name: rule for rule in load(files()).rules if rule.source == SYSCALL}


def copies() -> str:
    """The rules that fire on a load of a module, as rules on one that fails; and what is off is on."""
    found = [rule for _, text in files() for rule in yaml.safe_load(text) if rule.get("rule") in IN_VAIN]
    assert len(found) == len(IN_VAIN)
    for rule in found:
        rule["condition"] = rule["condition"].replace("evt.rawres = 0", "evt.rawres < 0")
    return yaml.safe_dump([*found, {"rule": NOT_ALLOWED, "enabled": True, "override": {"enabled": "replace"}}])


def type_in(*command: str) -> None:
    """Work at a shell that a command gives, at a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"exit\n")
        process.wait(20)
    os.close(ours)


def told(alert: dict[str, Any]) -> Alert:
    """What an alert says."""
    fields = alert["output_fields"]
    names = [
        "fd.name",
        "fd.nameraw",
        *(f"evt.arg.{name}" for name in ("filename", "newpath", "linkpath", "path", "name")),
    ]
    subject = next((fields[name] for name in names if fields.get(name)), "").rpartition("->")[2]
    command = fields["proc.cmdline"].replace(
        "memfd:memo", "3"
    )  # what fexecve begins is called by its file since Linux 6.14
    return Alert(alert["rule"], command, subject, fields["proc.pname"])
