"""Containers as they fail in clusters: by way of wrappers, masters, clients, retries, and among errors that mean nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.why.case import Case, Kind, Running
from tests.why.cases.benign import FINE
from tests.why.cases.c import c, main
from tests.why.cases.go import go
from tests.why.cases.java import JAVA, QUICK, java
from tests.why.cases.node import NODE, js
from tests.why.cases.python import py, resolver
from tests.why.cases.shell import sh

SEARCH = resolver(
    "nameserver 10.43.0.10", "search shop.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5"
)
#: An account for programs that want to know who they are.
PASSWD = {"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"}


def bash(name: str, script: str, *causes: str, **options: Any) -> Case:
    """A script of bash, with the machine's programs."""
    files = {"/app/start.sh": f"#!/usr/bin/bash\nPATH=/usr/bin:/bin\n{script.strip()}\n", **options.pop("files", {})}
    return Case(f"bash-{name}", "shell", ("/app/start.sh",), causes, files=files, usr=True, **options)


def terminated(running: Running) -> None:
    running.says("ready")
    running.signal("TERM")
    running.ends(5.0)


_SHELL = [
    sh("supervisor", """
for i in 1 2 3; do
  /app/worker.sh && exit 0
  echo "worker exited with $?, restarting"
  sleep 0.1
done
echo "worker failed 3 times, giving up"
exit 1""", "missing-file", says="/etc/worker/queues.json",
       files={"/app/worker.sh": "#!/bin/sh\nset -e\ncat /etc/worker/queues.json > /tmp/queues\nsleep 60\n"}),
    sh("crlf-inside", "set -e\necho starting\n/app/run.sh --port 80\necho done", "missing-program", "missing-file",
       says="run.sh|/bin/sh", exits=127, files={"/app/run.sh": "#!/bin/sh\r\necho running\r\n"}),
    sh("harmless-first", """
for plugin in auth cache trace mail; do
  cat /app/plugins/$plugin.conf || echo "warning: plugin $plugin has no configuration, using defaults"
done
nc 10.43.0.30 6379 < /dev/null || { echo "fatal: cannot reach queue"; exit 1; }""", "refused", says="10.43.0.30.*6379",
       peers=True),
    sh("misleading", """
echo "connection refused by 10.0.0.1:5432, using the replica"
echo "open /etc/optional.conf: no such file or directory (ignored)"
set -e
dd if=/dev/zero of=/data/index bs=1k count=200
exec sleep 60""", "disk", says="/data|space", tmpfs={"/data": "size=64k"}),
    sh("watchdog-child", """
echo starting
( sleep 0.3; kill -9 $PPID_OF_APP ) &
exec sleep 60""".replace("$PPID_OF_APP", "$$"), "killed-by-process", says="sh|kill", exits=-9, shared_pids=True),
    sh("folder-for-file", "set -e\necho starting\ncat /etc/app/config.yaml > /tmp/config", "missing-file", "bad-option",
       "nothing", says="config.yaml.*director", files={"/etc/app/config.yaml/": ""}),
    sh("cleanup-fails", """
cleanup() { rm /run/app.pid; umount /mnt/cache; }
trap cleanup EXIT
set -e
echo starting
cat /etc/app/tls.key > /tmp/key
exec sleep 60""", "missing-file", says="tls.key"),
    sh("applet-option", "set -e\necho starting\nsleep --forever", "bad-option", says="forever|option"),
    bash("curl-plain", "set -e\ncurl -sS https://10.43.0.22/register", "tls", says="ssl|tls", exits=35, peers=True),
    bash("curl-503", "set -e\necho probing\ncurl -fsS http://10.43.0.24:8500/v1/health", "nothing", "bad-option", says="503", exits=22,
         peers=True),
    bash("curl-empty", "set -e\ncurl -sS http://10.43.0.25:5432/", "reset", "no-answer", says="10.43.0.25|empty reply", exits=52, peers=True),
    bash("perl-die", """perl -e 'print STDERR "loading\\n"; my $n = 0; die "stock is negative" unless $n;'""", "exception", says="stock is negative",
         exits=255),
    bash("wait", "/usr/bin/sleep 0.2 &\nfirst=$!\n/app/missing-worker &\nsecond=$!\nwait $first && wait $second", "missing-program",
         says="missing-worker", exits=127),
    sh("wrong-flag-of-server", "echo starting\nexec httpd -f -p eighty", "bad-option", "dns", says="eighty|port|invalid"),
    bash("nounset-array", 'set -u\necho "starting"\necho "${HOSTS[0]}"', "bad-option", says="HOSTS"),
    sh("denied-then-false", "set -e\nmkdir /var/spool || echo 'no spool'\ncat /etc/app/pass > /tmp/pass || true\ntest -s /tmp/none", "nothing", "missing-file", "permission", user=1000,
       files={"/etc/app/pass": ("x", 0o600)}),
    sh("ip-link", "set -e\nip link set lo mtu 1400\nexec sleep 60", "capability", "permission", says="not permitted", exits=2),
    sh("crond", "exec crond -f", "missing-file", says="cron"),
    sh("oom-in-script", "/usr/bin/python3 -c 'x = []\nwhile True: x.append(b\"x\" * (1 << 20))'\ncode=$?\necho \"import failed with $code\"\nexit $code", "oom", says="memory", exits=137,
       memory=48 << 20, usr=True),
    sh("ln-exists", "set -e\nln -s /app/a /tmp/current\nln -s /app/b /tmp/current\nexec sleep 60", "nothing", "bad-option", says="/tmp/current.*exists"),
    sh("telnet-hole", "set -e\nnc -w 1 10.99.0.33 443 < /dev/null\nexec sleep 60", "no-answer", says="10.99.0.33", peers=True),
    sh("killed-sidekick", "sleep 60 &\nchild=$!\n( sleep 0.3; kill -TERM $child ) &\nwait $child\ncode=$?\necho \"proxy ended: $code\"\nexit $code", "killed-by-process", says="sleep|SIGTERM", exits=143),
]  # fmt: skip

GUNICORN = """
import os, sys
print('[1] [INFO] Starting gunicorn', file=sys.stderr)
for i in range(2):
    if not os.fork():
        try:
            %s
        except BaseException:
            import traceback
            print('[ERROR] Exception in worker process', file=sys.stderr)
            traceback.print_exc()
            os._exit(3)
pid, status = os.wait()
print('[ERROR] Worker (pid:%%d) exited with code 3' %% pid, file=sys.stderr)
os.wait()
print('[ERROR] Shutting down: Master', file=sys.stderr)
print('[ERROR] Reason: Worker failed to boot.', file=sys.stderr)
sys.exit(3)"""

_PYTHON = [
    py("gunicorn-import", GUNICORN % "import flask_shop", "missing-file", "exception", says="flask_shop", exits=3),
    py("pool-oom", """
import concurrent.futures, os
def eat(_):
    x = []
    while True:
        x.append(b'x' * (1 << 20))
if __name__ == '__main__':
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        print(list(pool.map(eat, [1])))""", "oom", says="memory", memory=64 << 20),
    py("child-oom", """
import os, sys
pid = os.fork()
if not pid:
    x = []
    while True:
        x.append(b'x' * (1 << 20))
_, status = os.waitpid(pid, 0)
print('renderer died with signal %d' % (status & 127), flush=True)
try:
    os.unlink('/run/renderer.sock')
except OSError:
    pass
sys.exit(1)""", "oom", says="memory", memory=64 << 20),
    py("own-child-port", """
import os, socket, time
def listen():
    s = socket.socket()
    s.bind(('0.0.0.0', 8080))
    s.listen()
    return s
if not os.fork():
    s = listen()
    time.sleep(5)
    os._exit(0)
time.sleep(0.3)
listen()""", "address-in-use", says="8080"),
    py("no-temp", "import tempfile\ntempfile.mkstemp()", "read-only", says="/tmp|temporary", readonly=True),
    py("wait-for", """
import asyncio
async def main():
    r, w = await asyncio.open_connection('10.43.0.20', 6379)
    w.write(b'PING')
    await asyncio.wait_for(r.read(10), 0.5)
asyncio.run(main())""", "no-answer", says="10.43.0.20.*6379", peers=True),
    py("license", "import sys\nprint('starting')\nprint('FATAL: license expired on 2024-01-31', file=sys.stderr)\nsys.exit(1)", "nothing",
       "bad-option", says="license expired"),
    py("finally", """
import os
try:
    open('/etc/app/rules.yaml')
finally:
    for place in ('/run/app.pid', '/run/app.sock', '/tmp/app.lock'):
        try:
            os.remove(place)
        except FileNotFoundError:
            pass""", "missing-file", says="rules.yaml"),
    py("from-cause", """
import socket
class DatabaseError(Exception): pass
def connect():
    try:
        socket.create_connection(('10.43.0.30', 5432))
    except OSError as e:
        raise DatabaseError('no healthy upstream') from e
connect()""", "refused", says="10.43.0.30.*5432", peers=True),
    py("swallowed", """
import json, os, sys
def load(path):
    try:
        return json.load(open(path))
    except OSError:
        return None
for path in ('/etc/shop/base.json', '/etc/shop/local.json'):
    load(path)
raise ValueError('replicas must be at least 1')""", "exception", says="replicas must"),
    py("loop-link", "import os\nos.symlink('/etc/current', '/etc/current')\nopen('/etc/current')", "missing-file", "exception", "nothing",
       says="/etc/current"),
    py("sigterm-from-worker", """
import os, signal, time
parent = os.getpid()
def stop(*_):
    raise SystemExit(1)
signal.signal(signal.SIGTERM, stop)
if not os.fork():
    time.sleep(0.3)
    os.kill(parent, signal.SIGTERM)
    os._exit(0)
print('ready', flush=True)
time.sleep(20)""", "killed-by-process", says="python3"),
    py("pg-isready-loop", """
import subprocess, sys, time
for i in range(3):
    if subprocess.run(['/bin/nc', '10.43.0.30', '5432'], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        break
    time.sleep(0.1)
else:
    print('postgres never came up')
    sys.exit(1)""", "refused", says="10.43.0.30.*5432", peers=True),
    py("replica-then-bad", """
import socket, sys
for host, port in (('10.43.0.30', 5432), ('10.43.0.24', 80)):
    try:
        s = socket.create_connection((host, port))
        print('connected to', host, flush=True)
        break
    except OSError as e:
        print('connect', host, e, flush=True)
s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
s.recv(1000)
sys.exit('schema version 7 is too old, need 9')""", "nothing", "bad-option", says="schema version", peers=True),
    py("plugin-traceback", """
import sys, traceback, time
try:
    import shop_metrics
except ImportError:
    traceback.print_exc()
print('metrics are off', file=sys.stderr)
sum(i for i in range(1000000))
open('/tmp/state', 'w').write('x')
sys.exit('replicas must be at least 1')""", "bad-option", "nothing", "exception", says="replicas must"),
    py("subprocess-timeout", "import subprocess\nprint('backing up', flush=True)\nsubprocess.run(['/bin/sleep', '20'], timeout=0.5)", "exception", "no-answer",
       "killed-by-process", says="timed out"),
    py("called-process-quiet", "import subprocess\nsubprocess.run(['/bin/cat', '/etc/seed.sql'], check=True, capture_output=True)", "missing-file", says="seed.sql"),
    py("sqlite-locked", """
import sqlite3
a = sqlite3.connect('/tmp/shop.db')
a.execute('create table t(x)')
a.execute('begin exclusive')
b = sqlite3.connect('/tmp/shop.db', timeout=0.3)
b.execute('insert into t values (1)')""", "hang-lock", "exception", says="lock"),
    py("uvicorn-like", """
import asyncio, logging, sys
logging.basicConfig(level='INFO', format='%(levelname)s:     %(message)s')
log = logging.getLogger()
async def main():
    log.info('Started server process [1]')
    log.info('Waiting for application startup.')
    try:
        await asyncio.open_connection('10.43.0.30', 6379)
    except OSError:
        import traceback
        log.error(traceback.format_exc())
        log.error('Application startup failed. Exiting.')
        sys.exit(3)
asyncio.run(main())""", "refused", says="10.43.0.30.*6379", exits=3, peers=True),
]  # fmt: skip

_NODE = [
    js("heap", "const keep = [];\nfor (;;) keep.push({ name: 'x' + keep.length, tags: [1, 2, 3] });", "memory", "abort", says="heap|memory",
       exits=-11, command=(NODE, "--max-old-space-size=24", "/app/main.js")),
    js("cluster", """
const cluster = require('cluster');
if (cluster.isPrimary) {
  cluster.fork();
  cluster.on('exit', (worker, code) => {
    console.error(`worker ${worker.process.pid} died`);
    process.exit(1);
  });
} else {
  require('fs').readFileSync('/etc/shop/routes.json');
}""", "missing-file", says="routes.json"),
    js("exit-in-catch", """
const fs = require('fs');
for (const f of ['.env', '.env.local', '.env.production']) { try { fs.readFileSync('/app/' + f); } catch {} }
try { fs.mkdirSync('/var/cache/app', { recursive: true }); fs.writeFileSync('/var/cache/app/x', '1'); }
catch (e) { process.exit(1); }""", "read-only", says="/var", readonly=True),
    js("silent-peer", """
const s = require('net').connect(6379, '10.43.0.20', () => s.write('PING'));
s.setTimeout(500, () => { console.error('redis timed out'); process.exit(1); });""", "no-answer", says="10.43.0.20.*6379", peers=True),
    js("unhandled-object", "Promise.reject({ code: 42 });", "exception", says="UNHANDLED|rejected|reason"),
    js("child-status", """
const { execSync } = require('child_process');
try { execSync('cat /etc/shop/seed.sql', { stdio: 'pipe' }); } catch (e) { console.error('seeding failed'); process.exit(1); }""", "missing-file",
       says="seed.sql"),
    js("handled-then-port", """
const fs = require('fs');
try { fs.readFileSync('/etc/flags.json'); } catch (e) { console.error(e.message); }
require('http').createServer().on('error', () => process.exit(1)).listen(9090);""", "address-in-use", says="9090", peers=True),
    js("oom-killed", "const keep = [];\nfor (;;) keep.push(Buffer.alloc(1 << 20, 1));", "oom", says="memory", exits=-9, memory=80 << 20),
    js("timeout-abort", """
const c = new AbortController();
setTimeout(() => c.abort(), 300);
fetch('http://10.43.0.20:6379/', { signal: c.signal }).catch((e) => { console.error(e.name + ': ' + e.message); process.exit(1); });""", "no-answer", "exception", says="10.43.0.20|abort", peers=True),
    js("fetch-failed", "fetch('http://10.43.0.30:8080/api').then(() => {});", "refused", says="10.43.0.30.*8080", peers=True),
    js("worker-thread", "const { Worker } = require('worker_threads');\nnew Worker(\"throw new Error('bad chunk')\", { eval: true });", "exception", says="bad chunk"),
]  # fmt: skip

_GO = [
    go("two-servers", """
	bad := make(chan error, 2)
	go func() { bad <- http.ListenAndServe("127.0.0.1:8081", nil) }()
	go func() { time.Sleep(50 * time.Millisecond); bad <- http.ListenAndServe(":9090", nil) }()
	err := <-bad
	log.Println("shutting down")
	os.Remove("/run/shop.sock")
	log.Println("http: Server closed")
	_ = err
	os.Exit(1)""", "address-in-use", says="9090", exits=1, peers=True),
    go("worker-panics", """
	if len(os.Args) > 1 {
		var list []int
		fmt.Println(list[len(os.Args)])
	}
	worker := exec.Command("/proc/self/exe", "worker")
	worker.Stderr = os.Stderr
	if err := worker.Run(); err != nil {
		fmt.Println("worker:", err)
		os.Exit(1)
	}""", "exception", says="out of range", exits=1),
    go("context-canceled", """
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, err := os.ReadFile("/etc/tls/tls.crt")
		fmt.Println("certificate watcher stopped:", err)
		cancel()
	}()
	<-ctx.Done()
	fmt.Println("error: context canceled")
	os.Exit(1)""", "missing-file", says="/etc/tls", exits=1),
    go("missing-then-panic", """
	if _, err := os.ReadFile("/etc/flags.json"); err != nil {
		fmt.Println("warn:", err)
	}
	list := strings.Split(os.Getenv("HOSTS"), ",")
	fmt.Println(list[len(list)+1])""", "exception", says="out of range"),
    go("child-fails", """
	out, err := exec.Command("/bin/cat", "/etc/seed.sql").CombinedOutput()
	if err != nil {
		log.Fatalf("seeding: %v", err)
	}
	fmt.Println(len(out))""", "missing-file", says="seed.sql", exits=1),
    go("wrapped-errors", """
	_, err := os.ReadFile("/config/routes.yaml")
	if err != nil {
		err = fmt.Errorf("loading routes: %w", errors.Unwrap(err))
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}""", "missing-file", says="/config/routes.yaml", exits=1),
    go("zap-fatal", """
	_, err := net.DialTimeout("tcp", "kafka.shop:9092", time.Second)
	fmt.Fprintf(os.Stderr, "2024-05-01T10:00:00.000Z\\tFATAL\\tshop/main.go:41\\tkafka\\t{\\"error\\": %q}\\n", err.Error())
	os.Exit(1)""", "dns", says="kafka.shop", exits=1, peers=True, files=SEARCH),
    go("klog", 'fmt.Fprintln(os.Stderr, "I0501 10:00:00.000000       1 main.go:30] Starting controller")\n_, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/token")\nfmt.Fprintln(os.Stderr, "F0501 10:00:00.000001       1 main.go:33] unable to load in-cluster configuration:", err)\nos.Exit(255)', "missing-file", says="serviceaccount/token", exits=255),
]  # fmt: skip

_JAVA = [
    java("vm-option", "", "bad-option", says="UseZGCC|option", command=(JAVA, "-XX:+UseZGCC", "-cp", "/app", "Main")),
    java("initializer", "Config.port();", "exception", "bad-option", says="eighty|NumberFormat|Initializer", members="""
    static class Config { static final int PORT = Integer.parseInt("eighty"); static int port() { return PORT; } }"""),
    java("nested-causes", """
        try {
            try { new FileInputStream("/etc/shop/rules.drl"); }
            catch (IOException e) { throw new IllegalStateException("rule engine", e); }
        } catch (RuntimeException e) { throw new RuntimeException("Error creating bean with name 'cart'", e); }""", "missing-file", says="rules.drl"),
    java("oom-killed", 'List<byte[]> l = new ArrayList<>(); for (;;) { byte[] b = new byte[1 << 20]; Arrays.fill(b, (byte) 1); l.add(b); }', "oom", says="memory", exits=-9,
         memory=72 << 20, command=(JAVA, *QUICK[:2], "-Xmx1g", "-cp", "/app", "Main")),
    java("logged-stack-then-exit", """
        try { Class.forName("shop.Metrics"); } catch (ClassNotFoundException e) { e.printStackTrace(); }
        Files.writeString(Path.of("/tmp/state"), "x");
        for (int i = 0; i < 200; i++) Files.readString(Path.of("/tmp/state"));
        System.err.println("quota of tenant 7 is exhausted"); System.exit(2);""", "nothing", "bad-option", says="quota", exits=2),
    java("bind-thread", """
        Thread t = new Thread(() -> { try { new ServerSocket(9090); } catch (IOException e) { System.err.println("listener died"); System.exit(4); } });
        t.start(); t.join();""", "address-in-use", says="9090", exits=4, peers=True),
    java("gc-option", "", "bad-option", says="GC|garbage|conflict", exits=1, command=(JAVA, "-XX:+UseSerialGC", "-XX:+UseG1GC", "-cp", "/app", "Main")),
]  # fmt: skip

_C = [
    c("double-free", main('char *volatile p = malloc(2000), *volatile q = malloc(2000); write(1, "starting\\n", 9); free(p); free(q); free(p);'), "abort", says="double free",
      exits=-11),
    c("mlock", main("""
	static char secret[65536];
	if (mlock(secret, sizeof secret)) die("Failed to lock memory");"""), "capability", "memory", says="mlock|memory|lock", rlimits={"MEMLOCK": 0}),
    c("cpu-limit", """
#include <sys/resource.h>
""" + main("""
	struct rlimit second = {1, 20};
	volatile long n = 0;
	setrlimit(RLIMIT_CPU, &second);
	for (;;) n++;"""), "killed", says="SIGXCPU|CPU", exits=-24, shared_pids=True),
    c("child-segv", main("""
	int status, pid = fork();
	if (!pid) { *(volatile int *)8 = 1; }
	waitpid(pid, &status, 0);
	fprintf(stderr, "master: child %d exited on signal %d\\n", pid, WTERMSIG(status));
	unlink("/run/master.pid");
	return 1;"""), "fault", says="SIGSEGV"),
    c("inotify-instances", main("for (;;) if (inotify_init1(0) < 0) die(\"inotify_init\");"), "inotify", "descriptors", says="inotify", user=43210),
    c("disk-late", main("""
	int fd = open("/wal/segment", O_CREAT | O_WRONLY, 0600);
	char page[4096] = {1};
	for (int i = 0; i < 100; i++)
		if (write(fd, page, sizeof page) != sizeof page) {
			fprintf(stderr, "PANIC: could not write to log file\\n");
			abort();
		}"""), "disk", says="/wal|space", exits=-11, tmpfs={"/wal": "size=128k"}),
    c("shm", main("""
	int fd = shm_open("/buffers", O_CREAT | O_RDWR, 0600);
	if (fd < 0 || posix_fallocate(fd, 0, 80 << 20)) { fprintf(stderr, "could not resize shared memory segment\\n"); return 1; }"""), "disk", "memory",
      says="/dev/shm|space", flags=("-lrt",)),
    c("unix-socket-stale", """
#include <sys/un.h>
""" + main("""
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/tmp/php-fpm.sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), old = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(old, (void *)&to, sizeof to);
	close(old);
	if (connect(fd, (void *)&to, sizeof to)) { fprintf(stderr, "upstream not available\\n"); return 1; }"""), "refused", says="php-fpm.sock"),
    c("exec-of-child", main("""
	int status;
	if (!fork()) { execl("/usr/libexec/helper", "helper", NULL); _exit(127); }
	wait(&status);
	if (status) { fprintf(stderr, "helper failed\\n"); return 1; }"""), "missing-program", says="/usr/libexec/helper"),
    c("lost-child-message", main("""
	int fds[2], status; char b[10];
	pipe(fds);
	if (!fork()) { close(fds[0]); if (open("/etc/worker.conf", O_RDONLY) < 0) _exit(9); write(fds[1], "ok", 2); pause(); }
	close(fds[1]);
	if (read(fds[0], b, 10) <= 0) { fprintf(stderr, "worker did not become ready\\n"); return 1; }"""), "missing-file", says="/etc/worker.conf"),
    c("child-inherits", main("""
	int status;
	for (int i = 0; i < 3; i++) {
		if (!fork()) { if (dial("10.43.0.30", 8123, 0) < 0) { fprintf(stderr, "child: no backend\\n"); _exit(1); } pause(); }
		wait(&status);
		usleep(50000);
	}
	fprintf(stderr, "too many restarts\\n");
	return 70;"""), "refused", says="10.43.0.30.*8123", exits=70, peers=True),
    c("write-error-late", main("""
	FILE *f = fopen("/state/db", "w");
	for (int i = 0; i < 100000; i++) fputs("some text that is longer\\n", f);
	if (fclose(f)) { fprintf(stderr, "could not save\\n"); return 3; }"""), "disk", says="/state", exits=3, tmpfs={"/state": "size=64k"}),
    c("poll-timeout", """
#include <poll.h>
""" + main("""
	int fd = dial("10.43.0.20", 6379, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	write(fd, "PING", 4);
	if (!poll(&p, 1, 700)) { fprintf(stderr, "giving up\\n"); return 1; }"""), "no-answer", says="10.43.0.20.*6379", peers=True),
    c("eof", main("""
	char b[10];
	int fd = dial("10.43.0.25", 5432, 0);
	write(fd, "HELLO", 5);
	if (read(fd, b, 10) <= 0) { fprintf(stderr, "server said nothing\\n"); return 1; }"""), "reset", "nothing", "no-answer", says="10.43.0.25|said nothing", peers=True),
    c("handled-segv", """
static void on(int s) { static const char m[] = "Caught SIGSEGV, shutting down\\n"; write(2, m, sizeof m - 1); _exit(139); }
""" + main("signal(SIGSEGV, on); *(volatile int *)16 = 1;"), "fault", says="SIGSEGV", exits=139),
    c("proxy-of-child", main("""
	int status, pid = fork();
	if (!pid) { execlp("/bin/cat", "cat", "/etc/haproxy.cfg", NULL); _exit(127); }
	waitpid(pid, &status, 0);
	for (int i = 0; i < 30; i++) access("/tmp", F_OK);
	fprintf(stderr, "[ALERT] config check failed\\n");
	return 1;"""), "missing-file", says="haproxy.cfg"),
    c("eventfd", """
#include <sys/eventfd.h>
""" + main("for (;;) if (eventfd(0, 0) < 0) die(\"event loop\");"), "descriptors", says="open files|EMFILE", rlimits={"NOFILE": 50}),
]  # fmt: skip

_HANGS = [
    sh("wait-for-port", "echo waiting for postgres\nuntil nc -w 1 10.43.0.30 5432 < /dev/null; do sleep 0.2; done", "refused", says="10.43.0.30.*5432", peers=True),
    sh("wait-for-name", "echo waiting for postgres\nuntil nslookup postgress >/dev/null 2>&1; do sleep 0.2; done", "dns", says="postgress", peers=True,
       files=SEARCH),
    c("child-stopped", main("int pid = fork(); if (!pid) { raise(SIGSTOP); _exit(0); } waitpid(pid, NULL, 0);"), "hang-child", says="child"),
    py("full-pipe", """
import subprocess
p = subprocess.Popen(['/bin/sleep', '60'], stdin=subprocess.PIPE)
p.stdin.write(b'x' * 1000000)""", "hang-read", says="pipe|takes no more"),
    py("join", """
import multiprocessing, threading
def work():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
if __name__ == '__main__':
    p = multiprocessing.Process(target=work)
    p.start()
    p.join()""", "hang-child", "hang-lock", says="child|lock"),
    js("spins", "console.log('starting');\nfor (;;) { }", "hang-busy"),
    sh("tail", "echo starting\nexec tail -F /var/log/app/app.log", "missing-file", says="app.log", runs=5.0),
    c("inotify", main('char b[999]; int fd = inotify_init1(0); inotify_add_watch(fd, "/tmp", IN_CREATE); read(fd, b, 999);'), "hang-read", says="inotify"),
    py("retry-forever", """
import socket, time
while True:
    try:
        socket.create_connection(('10.43.0.30', 5672), 1)
        break
    except OSError as e:
        print('broker not reachable, trying again', flush=True)
        time.sleep(0.2)""", "refused", says="10.43.0.30.*5672", peers=True),
    js("retry-forever", """
const net = require('net');
const attempt = () => net.connect(5672, '10.43.0.30').on('error', () => setTimeout(attempt, 100));
attempt();""", "refused", says="10.43.0.30.*5672", peers=True),
    java("retry-forever", """
        for (;;) { try { new Socket("10.43.0.30", 5672); break; } catch (IOException e) { Thread.sleep(100); } }""", "refused", says="10.43.0.30.*5672", peers=True, runs=5.0),
    go("spins", "n := 0\nfor {\n\tn++\n}", "hang-busy"),
    java("spins", "long n = 0; System.out.println(\"starting\"); for (;;) n++;", "hang-busy", "nothing", runs=5.0),
    sh("child-in-fifo", "mkfifo /tmp/in\n/bin/cat /tmp/in > /tmp/out\necho done", "hang-child", "hang-read", says="/tmp/in|cat|child"),
    sh("until-file-listing", "echo waiting\nuntil ls /shared/ready >/dev/null 2>&1; do sleep 0.2; done", "missing-file", "hang-busy", says="/shared/ready|over"),
    js("pending-connect", "const s = require('net').connect(443, '10.99.0.50');\nsetInterval(() => {}, 500);", "hang-connect", says="10.99.0.50.*443", peers=True),
    sh("wait-dns", "until nc -w 1 orders-db 5432 < /dev/null; do echo waiting for orders-db; sleep 0.3; done", "dns", says="orders-db", peers=True, files=SEARCH, runs=2.5),
]  # fmt: skip

_BENIGN = [
    sh("retry-then-well", """
n=0
until nc -w 1 10.43.0.24 $((77 + n)) < /dev/null 2>/dev/null; do n=$((n + 1)); echo "web is not up yet"; sleep 0.05; done
echo "web is up"
exit 0""", *FINE, exits=0, peers=True),
    py("job-tracebacks", """
import traceback
for path in ('/a', '/b', '/c'):
    try:
        open(path)
    except OSError:
        traceback.print_exc()
print('3 skipped, done')""", *FINE, exits=0),
    py("worker-restarted", """
import os
for i in range(2):
    pid = os.fork()
    if not pid:
        if i == 0:
            os.abort()
        os._exit(0)
    os.waitpid(pid, 0)
print('all done')""", *FINE, exits=0),
    bash("trap-exit", "trap 'rm -f /run/x; exit 0' TERM\necho ready\nsleep 30 &\nwait", *FINE, exits=0, act=terminated),
    py("server-goes-on", """
import http.server, os
for path in ('/etc/shop/a.json', '/etc/shop/b.json'):
    try:
        open(path)
    except OSError as e:
        print('no', path, flush=True)
http.server.HTTPServer(('127.0.0.1', 8080), http.server.BaseHTTPRequestHandler).serve_forever()""", "nothing", exits=None, runs=1.5),
    js("fine-listens-after-errors", """
const fs = require('fs');
for (const f of ['/etc/a.json', '/etc/b.json']) { try { fs.readFileSync(f); } catch (e) { console.error(String(e)); } }
require('http').createServer().listen(8080, () => console.log('ready'));""", "nothing", exits=None, runs=2.0),
    go("fine-ticks", """
	if _, err := os.ReadFile("/etc/agent.yaml"); err != nil {
		fmt.Println("using defaults:", err)
	}
	for range time.Tick(200 * time.Millisecond) {
		os.WriteFile("/tmp/beat", nil, 0o600)
	}""", "nothing", exits=None, runs=2.0),
    java("fine-term", "System.out.println(\"ready\"); Thread.sleep(60000);", *FINE, exits=143, act=terminated),
    sh("fine-loop-with-errors", "echo ready\nwhile :; do cat /proc/loadavg > /tmp/load; cat /etc/none 2>/dev/null; sleep 0.2; done", "nothing", "hang-child", "hang-busy", exits=None, runs=2.0),
    go("benign-worker", 'fmt.Println("ready")\nfor {\n\tos.Stat("/queue/jobs")\n\tos.WriteFile("/tmp/alive", nil, 0o644)\n\ttime.Sleep(200 * time.Millisecond)\n}', "nothing", exits=None, runs=2.0),
]  # fmt: skip

_ALL = [
    *_SHELL, *_PYTHON, *_NODE, *_GO, *_JAVA, *_C,
    *(replace(case, name=f"hang-{case.name}", kind=Kind.HANG, exits=None, runs=case.runs or 1.5) for case in _HANGS),
    *(replace(case, kind=Kind.BENIGN) for case in _BENIGN),
]  # fmt: skip
CASES: list[Case] = [replace(case, name=f"pod-{case.name}") for case in _ALL]
