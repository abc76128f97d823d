"""Scripts of busybox's shell, and what a runtime cannot start."""

from __future__ import annotations

from typing import Any

from tests.why.case import Case, Running

#: The head of a program for arm64.
ARM64 = (
    b"\x7fELF\x02\x01\x01"
    + bytes(9)
    + b"\x02\x00\xb7\x00\x01\x00\x00\x00"
    + bytes(40)
    + b"\x40\x00\x38\x00"
    + bytes(200)
)


def sh(name: str, script: str, *causes: str, **options: Any) -> Case:
    """A script that is the container's entry point."""
    files = {"/app/start.sh": f"#!/bin/sh\n{script.strip()}\n", **options.pop("files", {})}
    return Case(f"sh-{name}", "shell", options.pop("command", ("/app/start.sh",)), causes, files=files, **options)


def starts_not(name: str, *causes: str, **options: Any) -> Case:
    """An entry point that the runtime cannot execute."""
    command = options.pop("command", ("/app/server", "--port", "80"))
    return Case(f"entry-{name}", "shell", command, causes, exits=1, starts=False, **options)


def killed_by_exec(running: Running) -> None:
    running.says("ready")
    running.exec("/bin/sh", "-c", "kill -TERM 1")


def killed_by_sidecar(running: Running) -> None:
    running.says("ready")
    running.beside("for each in $(pidof server); do kill -9 $each; done")


def sidecar_fails(running: Running) -> None:
    running.says("ready")
    running.beside("cat /etc/sidecar.yaml; exit 3")
    running.exec("/bin/touch", "/tmp/go")


def term_then_kill(running: Running) -> None:
    running.says("ready")
    running.signal("TERM")
    running.ends(1.0)
    running.signal("KILL")


def kill(running: Running) -> None:
    running.says("ready")
    running.signal("KILL")


CASES = [
    sh("config-missing", ". /etc/app/env\nexec /bin/sleep 30", "missing-file", says="/etc/app/env", exits=2,
       call="open.*/etc/app/env.*ENOENT"),
    sh("command-missing", "echo starting\nmigrate --all", "missing-program", says="migrate", exits=127,
       call="(exec|stat).*migrate.*ENOENT"),
    sh("exec-missing", "echo starting\nexec /app/bin/server --port 80", "missing-program", says="/app/bin/server",
       exits=127, call="exec.*/app/bin/server.*ENOENT"),
    sh("not-executable", "echo starting\n/app/migrate", "not-executable", says="/app/migrate", exits=126,
       files={"/app/migrate": "echo migrating\n"}, call="exec.*migrate.*EACCES"),
    sh("crlf-inside", "echo starting\n/app/job.sh", "missing-program", says="job.sh", exits=127,
       files={"/app/job.sh": "#!/bin/sh\r\necho done\r\n"}, call="exec.*job.sh.*ENOENT"),
    sh("interpreter-missing", "echo starting\n/app/job", "missing-program", says="/app/job", exits=127,
       files={"/app/job": "#!/usr/bin/bash\necho done\n"}, call="exec.*/app/job.*ENOENT"),
    sh("arm64-inside", "set -e\n/app/tool --version", "wrong-format", says="/app/tool", exits=127,
       files={"/app/tool": (ARM64, 0o755)}, call="exec.*tool.*ENOEXEC"),
    starts_not("missing", "missing-program", says="/app/server"),
    starts_not("missing-in-path", "missing-program", says="cart-server", command=("cart-server",)),
    starts_not("not-executable", "not-executable", says="/app/server", files={"/app/server": ("#!/bin/sh\n", 0o644)}),
    starts_not("crlf", "missing-program", says="/app/start.sh", command=("/app/start.sh",),
               files={"/app/start.sh": "#!/bin/sh\r\nexec sleep 30\r\n"}),
    starts_not("no-shebang", "wrong-format", says="/app/start.sh", command=("/app/start.sh",),
               files={"/app/start.sh": ("exec sleep 30\n", 0o755)}),
    starts_not("arm64", "wrong-format", says="/app/server", files={"/app/server": (ARM64, 0o755)}),
    starts_not("interpreter-missing", "missing-program", says="/app/main", command=("/app/main",),
               files={"/app/main": "#!/usr/bin/env python3\nprint(1)\n"}),
    starts_not("folder", "not-executable", says="/app/server", files={"/app/server/": ""}),
    sh("seed-missing", """
set -e
cat /data/seed.sql | wc -l
cp /data/seed.sql /tmp/seed.sql
exec sleep 30""", "missing-file", says="/data/seed.sql", call="open.*/data/seed.sql.*ENOENT"),
    sh("read-only", "set -e\necho starting\ntouch /run/app.pid\nexec sleep 30", "read-only", says="/run/app.pid",
       readonly=True, files={"/run/": ""}, call="/run/app.pid.*EROFS"),
    sh("not-permitted", "set -e\nid -u\necho hello > /data/state\nexec sleep 30", "permission", says="/data",
       user=1000, exits=1, files={"/data/": ""}, call="/data/state.*EACCES"),
    sh("secret-unreadable", "set -e\ncat /etc/app/key > /tmp/key\nexec sleep 30", "permission", says="/etc/app/key",
       user=1000, files={"/etc/app/key": ("secret\n", 0o600), "/tmp/": ("", 0o1777)}, call="/etc/app/key.*EACCES"),
    sh("disk-full", "set -e\nhead -c 100000 /dev/zero > /data/journal\nexec sleep 30", "disk", says="/data",
       tmpfs={"/data": "size=32k"}, call="write.*ENOSPC"),
    sh("refused-retries", """
for try in $(seq 40); do
  nc -w 1 10.43.0.30 5432 </dev/null && exec sleep 30
  sleep 0.02
done
echo "gave up waiting for the database"
exit 1""", "refused", says="10.43.0.30.*5432", peers=True, call="connect.*5432.*ECONNREFUSED"),
    sh("no-such-name", """
for file in /etc/app/env.local /etc/app/env; do [ -f $file ] && . $file; done
wget -q -O - http://inventory.shop.svc.cluster.local/prices || exit 4""", "dns", says="inventory.shop", exits=4,
       peers=True, usr=True, files={"/etc/resolv.conf": "nameserver 10.43.0.10\nsearch shop.svc.cluster.local\n",
                                    "/etc/nsswitch.conf": "hosts: files dns\n"}, call="(recv|send).*inventory"),
    sh("variable-unset", 'echo starting\necho "connecting to ${DATABASE_URL:?must be set}"', "bad-option",
       says="DATABASE_URL", exits=2, call="write.*DATABASE_URL"),
    sh("syntax-error", "echo starting\nif then\nfi", "bad-option", "nothing", says="syntax error|unexpected", exits=2,
       call="write.*syntax error"),
    sh("wrapped-cat", "", "missing-file", says="/etc/config/app.yaml",
       command=("/bin/sh", "-c", "cat /etc/config/app.yaml && exec sleep 30"), call="/etc/config/app.yaml.*ENOENT"),
    sh("folder-missing", """
for name in env env.local env.production env.secret; do
  [ -f /etc/app/$name ] && . /etc/app/$name
done
cd /srv/app/current && exec ./server""", "missing-file", says="/srv/app/current", exits=2,
       call="chdir.*/srv/app/current.*ENOENT"),
    sh("file-too-large", "ulimit -f 8\nset -e\nhead -c 100000 /dev/zero > /tmp/journal\nexec sleep 30", "file-size",
       says="/tmp/journal|file size|SIGXFSZ", exits=153, call="SIGXFSZ"),
    sh("fork-refused", "for each in $(seq 200); do sleep 3 & done\nwait", "processes", pids=12, exits=2,
       says="fork|clone|process", call="(clone|fork).*EAGAIN"),
    sh("killed-from-inside", "trap 'echo bye; exit 1' TERM\necho ready\nwhile true; do sleep 0.1; done",
       "killed-by-process", says="SIGTERM", act=killed_by_exec, call="SIGTERM"),
    sh("killed-by-sidecar", "", "killed-by-process", says="SIGKILL", command=("/app/bin/server",), exits=-9,
       files={"/app/bin/server": "#!/bin/sh\necho ready\nwhile true; do sleep 0.2; done\n"}, shared_pids=True,
       act=killed_by_sidecar, call="SIGKILL"),
    sh("ignores-sigterm", "trap '' TERM\necho ready\nwhile true; do sleep 0.1; done", "ignored-sigterm",
       says="SIGTERM", exits=-9, act=term_then_kill, call="SIGTERM"),
    sh("killed-from-outside", "echo ready\nwhile true; do sleep 0.1; done", "killed", says="SIGKILL", exits=-9, act=kill,
       call="SIGKILL"),
    sh("oom-child", """
echo loading
awk 'BEGIN { x = "xxxxxxxxxxxxxxxx"; while (1) x = x x }'
code=$?
echo "import ended with $code"
exit $code""", "oom", says="memory", exits=137, memory=24 << 20, call="SIGKILL"),
    sh("port-taken", "echo starting\nnc -l -p 9090 -e /bin/cat", "address-in-use", says="9090", peers=True,
       call="bind.*9090.*EADDRINUSE"),
    sh("chown-refused", "set -e\nchown 1000:1000 /data\nexec sleep 30", "capability", says="chown", drop=("CHOWN",),
       files={"/data/": ""}, call="chown.*EPERM"),
    sh("mount-refused", "set -e\nmount -t tmpfs none /mnt\nexec sleep 30", "capability", says="mount|CAP_SYS_ADMIN",
       files={"/mnt/": ""}, call="mount.*EPERM"),
    sh("user-change-refused", "echo starting\nexec su -s /bin/sh app -c /bin/sleep 30", "capability",
       says="group|CAP_SETGID", drop=("SETGID", "SETUID"), exits=1,
       files={"/etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", "/etc/group": "app:x:1000:\n"},
       call="set(gid|groups).*EPERM"),
    sh("through-logger", """
mkfifo /tmp/log
tee /tmp/copy < /tmp/log &
exec > /tmp/log 2>&1
echo starting
set -e
sort /srv/prices.csv > /tmp/prices.csv
exec sleep 30""", "missing-file", says="/srv/prices.csv", call="/srv/prices.csv.*ENOENT", exits=2),
    sh("other-error-first", """
cat /etc/motd
echo "warning: no cache at /var/cache/app, going on" >&2
ls /var/cache/app 2>/dev/null
nc -w 1 10.43.0.30 6379 </dev/null
code=$?
rm -f /run/lock/app /tmp/none
rmdir /var/lib/none 2>/dev/null
exit $code""", "refused", says="6379", peers=True, call="connect.*6379.*ECONNREFUSED"),
    sh("gives-up-waiting", """
for try in $(seq 60); do
  [ -e /shared/migrated ] && exec sleep 30
  sleep 0.01
done
echo "timed out waiting for the migration"
exit 1""", "missing-file", "no-answer", says="/shared/migrated", call="/shared/migrated.*ENOENT"),
    sh("sidecar-fails-too", """
echo ready
while [ ! -e /tmp/go ]; do sleep 0.05; done
exec nc -w 1 10.43.0.30 6379 </dev/null""", "refused", says="6379", peers=True, act=sidecar_fails,
       call="connect.*6379.*ECONNREFUSED"),
    sh("ends-early", "echo starting\ncat /proc/version > /dev/null\necho started", "clean-exit", exits=0,
       says="0|by itself|clean"),
    sh("no-input", "exec /bin/sh", "clean-exit", exits=0, says="0|by itself|clean|input"),
    sh("grep-found-nothing", "set -e\necho starting\ngrep -q ^enabled /etc/app.conf\nexec sleep 30", "nothing",
       files={"/etc/app.conf": "disabled\n"}),
    sh("sysctl-read-only", "set -e\necho 1024 > /proc/sys/net/core/somaxconn\nexec sleep 30", "read-only", says="somaxconn",
       call="somaxconn.*EROFS"),
    sh("config-mount-read-only", "set -e\ncd /etc/app\nsed -i s/80/8080/ app.conf\nexec sleep 30", "read-only", says="/etc/app|sed|app.conf",
       tmpfs={"/etc/app": "ro"}, exits=1, files={"/etc/app/": ""}, command=("/bin/sh", "-c", "set -e; echo port > /etc/app/app.conf; exec sleep 30"),
       call="EROFS"),
    sh("inodes-full", "set -e\nfor each in $(seq 40); do : > /data/$each; done\nexec sleep 30", "disk", says="/data", exits=1,
       tmpfs={"/data": "size=1m,nr_inodes=12"}, call="/data/.*ENOSPC"),
    sh("not-a-folder", "set -e\nmkdir -p /etc/app.conf/d\nexec sleep 30", "missing-file", "nothing", "bad-option", says="/etc/app.conf|ords",
       files={"/etc/app.conf": "x"}, call="/etc/app.conf.*(ENOTDIR|EEXIST)"),
    sh("port-not-a-number", 'case "$PORT" in *[!0-9]*) echo "PORT must be a number, got $PORT" >&2; exit 64;; esac\nexec sleep 30',
       "bad-option", says="PORT", exits=64, env=("PORT=tcp://10.96.8.3:80",), call="write.*PORT"),
    sh("silent-one", "sleep 0.1\nexit 1", "nothing"),
    sh("tar-damaged", "set -e\ntar xzf /data/site.tgz -C /tmp\nexec sleep 30", "bad-option", "nothing", says="tar|magic|gzip|ords",
       files={"/data/site.tgz": "not an archive"}, call="write.*(magic|gzip)"),
    sh("backup-then-missing", """
set -e
mkdir -p /backup
cp /proc/mounts /backup/mounts
cat /etc/passwd /etc/group > /backup/users 2>/dev/null || true
cd /backup
sha256sum --check SUMS 2>/dev/null || echo "no sums yet"
mv /data/dump.sql /backup/dump.sql""", "missing-file", says="/data/dump.sql", call="/data/dump.sql.*ENOENT"),
    sh("wget-refused", "wget -q -O /tmp/index http://10.43.0.30:8080/ || { echo 'upstream is down'; exit 8; }", "refused",
       says="10.43.0.30.*8080", exits=8, peers=True, call="connect.*8080"),
    sh("wget-503", "wget -q -O /tmp/index http://10.43.0.24:8500/ || exit 8", "bad-option", "nothing", says="503|wget|ords", exits=8,
       peers=True, call="write.*503"),
    sh("device-missing", "set -e\nexec 3</dev/fuse\nexec sleep 30", "missing-file", says="/dev/fuse", exits=1, call="/dev/fuse.*ENOENT"),
    sh("background-dies", """
( sleep 0.1; cat /etc/worker.conf > /dev/null || exit 5 ) &
worker=$!
echo "worker is $worker"
wait $worker
code=$?
echo "worker ended with $code"
exit $code""", "missing-file", says="/etc/worker.conf", exits=5, call="worker.conf.*ENOENT"),
    sh("killed-by-timeout", "timeout 1 sleep 30\nexit $?", "killed-by-process", "hang-child", "nothing", exits=143, call="SIGTERM"),
    sh("template-missing", "set -e\nfor each in base site; do sed s/NAME/x/ /etc/templates/$each.tmpl > /tmp/$each; done", "missing-file",
       says="/etc/templates/site.tmpl", files={"/etc/templates/base.tmpl": "NAME"}, call="site.tmpl.*ENOENT"),
]  # fmt: skip
