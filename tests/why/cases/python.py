"""Programs in Python."""

from __future__ import annotations

from typing import Any

from tests.why.case import Case, Running

PYTHON = "/usr/bin/python3"


def py(name: str, source: str, *causes: str, **options: Any) -> Case:
    """A script that the machine's Python runs."""
    files = {"/app/main.py": f"{source.strip()}\n", **options.pop("files", {})}
    command = options.pop("command", (PYTHON, "/app/main.py"))
    return Case(f"py-{name}", "python", command, causes, files=files, usr=True, **options)


def resolver(*lines: str) -> dict[str, Any]:
    """Files that say who resolves names."""
    return {"/etc/resolv.conf": "".join(f"{line}\n" for line in lines), "/etc/nsswitch.conf": "hosts: files dns\n",
            "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"}  # fmt: skip


def stopped_by_exec(running: Running) -> None:
    running.says("ready")
    running.exec("/bin/kill", "-TERM", "1")


def interrupted_by_exec(running: Running) -> None:
    running.says("ready")
    running.exec("/bin/sh", "-c", "kill -INT $(pidof python3)")


CASES = [
    py("module-missing", "import json, logging, sqlalchemy_utils_shop\nprint('started')", "missing-file", "exception",
       says="sqlalchemy_utils_shop", call="write.*No module"),
    py("module-within", "import shop.server", "missing-file", "exception", says="pricing",
       files={"/app/shop/__init__.py": "", "/app/shop/server.py": "from shop import pricing\n"}, call="write.*pricing"),
    py("variable-missing", "import os\nhost = os.environ['REDIS_HOST']\nprint(host)", "exception", says="REDIS_HOST",
       call="write.*REDIS_HOST"),
    py("json-invalid", "import json\nwith open('/etc/app/config.json') as file:\n    config = json.load(file)",
       "exception", "bad-option", says="JSONDecodeError|config.json", files={"/etc/app/config.json": "{'port': 80}\n"},
       call="write.*JSONDecodeError"),
    py("prices-missing", """
import sys, locale
try:
    with open('/etc/cart/prices.yaml') as file:
        prices = file.read()
except FileNotFoundError:
    sys.exit('fatal: no price list')""", "missing-file", says="/etc/cart/prices.yaml", call="prices.yaml.*ENOENT"),
    py("data-missing", """
import csv
with open('/data/catalogue.csv') as file:
    rows = list(csv.reader(file))""", "missing-file", "exception", says="/data/catalogue.csv", call="catalogue.csv.*ENOENT"),
    py("catches-and-ends", """
import logging, time
try:
    with open('/etc/worker/queue.conf') as file:
        queue = file.read()
    while True:
        time.sleep(1)
except Exception as error:
    logging.error('cannot start: %s', error)""", "missing-file", "clean-exit", says="queue.conf|by itself|0", exits=0,
       call="queue.conf.*ENOENT"),
    py("localhost-refused", """
import socket
socket.create_connection(('localhost', 6379), timeout=2)""", "refused", says="6379", files=resolver("nameserver 127.0.0.1"),
       call="connect.*6379|SO_ERROR.*ECONNREFUSED"),
    py("refused-retries", """
import socket, sys, time, logging
for number in range(44):
    try:
        socket.create_connection(('10.43.0.30', 6379), timeout=1)
        break
    except OSError as error:
        logging.warning('redis: %s', error)
        time.sleep(0.02)
else:
    sys.exit('redis did not come up')""", "refused", says="10.43.0.30.*6379", peers=True, call="connect.*6379|SO_ERROR.*ECONNREFUSED"),
    py("refused-caught", """
import http.client, sys
try:
    http.client.HTTPConnection('10.43.0.30', 8500, timeout=1).request('GET', '/v1/kv/cart')
except OSError as error:
    print('error: cannot get configuration', flush=True)
    sys.exit(4)""", "refused", says="8500", exits=4, peers=True, call="connect.*8500"),
    py("name-unknown", """
import socket
socket.create_connection(('inventory.shop.svc.cluster.local', 80))""", "dns", says="inventory.shop", peers=True,
       files=resolver("nameserver 10.43.0.10"), call="recv.*inventory"),
    py("name-server-silent", """
import socket
socket.getaddrinfo('redis.shop.svc.cluster.local', 6379)""", "dns", says="redis.shop|10.43.0.11", peers=True,
       files=resolver("nameserver 10.43.0.11", "options timeout:1 attempts:1"), call="(send|poll).*(redis|POLLIN)"),
    py("name-server-fails", """
import socket
socket.getaddrinfo('redis.shop.svc.cluster.local', 6379)""", "dns", says="redis.shop|10.43.0.13", peers=True,
       files=resolver("nameserver 10.43.0.13", "options timeout:1 attempts:1"), call="recv"),
    py("certificate-unknown", """
import urllib.request
urllib.request.urlopen('https://api/', timeout=3)""", "tls", says="certificate|TLS|SSL", peers=True,
       files=resolver("nameserver 10.43.0.10"), call="write.*CERTIFICATE_VERIFY_FAILED"),
    py("plain-text-port", """
import ssl, socket
plain = socket.create_connection(('10.43.0.22', 443), timeout=3)
ssl.create_default_context().wrap_socket(plain, server_hostname='api')""", "tls", says="TLS|SSL", peers=True,
       call="write.*SSL"),
    py("no-memory", """
cache = []
while True:
    cache.append(bytearray(16 << 20))""", "memory", "exception", says="memory", rlimits={"AS": 256 << 20},
       call="mmap.*ENOMEM"),
    py("oom", """
cache = []
print('warming the cache', flush=True)
while True:
    cache.append(b'x' * (1 << 20))""", "oom", says="memory", exits=-9, memory=32 << 20, call="SIGKILL"),
    py("port-taken", """
import http.server
http.server.HTTPServer(('0.0.0.0', 9090), http.server.BaseHTTPRequestHandler).serve_forever()""", "address-in-use",
       says="9090", peers=True, call="bind.*9090.*EADDRINUSE"),
    py("low-port", """
import http.server
http.server.HTTPServer(('0.0.0.0', 80), http.server.BaseHTTPRequestHandler).serve_forever()""", "capability", "permission",
       says="80", user=1000, call="bind.*EACCES"),
    py("log-not-permitted", """
import logging
logging.basicConfig(filename='/var/log/app/app.log')""", "permission", says="/var/log/app", user=1000,
       files={"/var/log/app/": ""}, call="app.log.*EACCES"),
    py("read-only", """
import pathlib, tempfile
pathlib.Path('/app/cache').mkdir()""", "read-only", says="/app/cache", readonly=True, call="mkdir.*EROFS"),
    py("disk-full", """
with open('/data/index', 'wb') as file:
    for number in range(1000):
        file.write(b'x' * 1000)""", "disk", says="/data", tmpfs={"/data": "size=128k"}, call="write.*ENOSPC"),
    py("descriptors-leak", """
import socket
held = []
while True:
    held.append(socket.socket())""", "descriptors", says="open files|descriptor|EMFILE", rlimits={"NOFILE": 40}, call="EMFILE"),
    py("recursion", """
def total(node):
    return total(node) + 1
total({})""", "exception", says="RecursionError", call="write.*Recursion"),
    py("key-error", "prices = {'tea': 3}\ndef price(name):\n    return prices[name]\nprint(price('coffee'))", "exception",
       says="KeyError|coffee", call="write.*KeyError"),
    py("aborts", "import os\nprint('state is inconsistent', flush=True)\nos.abort()", "abort", says="SIGABRT|abort|inconsistent",
       exits=-6, shared_pids=True, call="SIGABRT"),
    py("helper-missing", "import subprocess\nsubprocess.run(['pg_dumpall_shop', '--clean'], check=True)", "missing-program",
       says="pg_dumpall_shop", call="exec.*pg_dumpall_shop.*ENOENT"),
    py("helper-fails", """
import subprocess
subprocess.run(['/bin/sh', '-c', 'cp /data/seed.db /tmp/seed.db'], check=True)""", "missing-file", says="/data/seed.db",
       call="seed.db.*ENOENT"),
    py("usage", """
import argparse
parser = argparse.ArgumentParser(prog='server')
parser.add_argument('--port', type=int)
parser.parse_args()""", "bad-option", says="eighty|port", command=(PYTHON, "/app/main.py", "--port", "eighty"), exits=2,
       call="write.*invalid int"),
    py("peer-silent", """
import socket
redis = socket.create_connection(('10.43.0.20', 6379), timeout=0.8)
redis.sendall(b'PING\\r\\n')
redis.recv(100)""", "no-answer", says="10.43.0.20|6379", peers=True, call="(poll|recv)"),
    py("peer-far", """
import socket
socket.create_connection(('10.99.0.9', 5432), timeout=0.8)""", "no-answer", says="10.99.0.9.*5432", peers=True,
       call="connect.*5432"),
    py("peer-resets", """
import socket
database = socket.create_connection(('10.43.0.21', 5432))
database.sendall(b'startup')
database.recv(100)""", "reset", says="10.43.0.21|5432", peers=True, call="recv.*ECONNRESET"),
    py("ctypes-crash", "import ctypes\nprint('starting', flush=True)\nctypes.string_at(8)", "fault", says="SIGSEGV", exits=-11,
       call="SIGSEGV"),
    py("no-route", "import urllib.request\nurllib.request.urlopen('http://192.0.2.9/metrics', timeout=2)", "unreachable",
       says="192.0.2.9", call="connect.*ENETUNREACH"),
    py("user-dropped", """
import os
os.setgid(1000)
os.setuid(1000)
open('/run/app.pid', 'w')""", "permission", says="/run", files={"/run/": ""}, call="app.pid.*EACCES"),
    py("text-invalid", "print(open('/data/names.txt', encoding='utf-8').read())", "exception", says="UnicodeDecodeError|utf-8",
       files={"/data/names.txt": b"caf\xe9\n"}, call="write.*UnicodeDecodeError"),
    py("wrapped", "", "missing-file", "exception", says="app_server_shop",
       command=("/bin/sh", "-c", "cd /app; echo starting; python3 -m app_server_shop; code=$?; echo ended; exit $code"),
       call="write.*app_server_shop"),
    py("not-there", "", "missing-file", says="/app/server.py", command=(PYTHON, "/app/server.py"), exits=2,
       call="server.py.*ENOENT"),
    py("worker-oom", """
import subprocess, sys
child = subprocess.run([sys.executable, '-c', 'x = []\\nwhile True: x.append(b"x" * (1 << 20))'])
if child.returncode:
    print('worker ended with', child.returncode, flush=True)
    sys.exit(1)""", "oom", says="memory", memory=48 << 20, call="SIGKILL"),
    py("no-input", "name = input('name: ')\nprint(name)", "exception", says="EOFError|EOF", call="write.*EOF"),
    py("stopped-from-inside", """
import signal, sys, time
def stop(number, frame):
    print('stopping', flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print('ready', flush=True)
while True:
    time.sleep(0.1)""", "killed-by-process", says="SIGTERM", exits=3, act=stopped_by_exec, call="SIGTERM"),
    py("thread-then-refused", """
import os, socket, threading
def poll():
    open('/var/cache/metrics')
thread = threading.Thread(target=poll)
thread.start()
thread.join()
try:
    socket.create_connection(('127.0.0.1', 5672))
except OSError as error:
    print('broker:', error, flush=True)
    os._exit(1)""", "refused", says="5672", call="connect.*5672"),
    py("works-after-refusal", """
import os, socket, sys
down = 0
for number in range(3):
    try:
        socket.create_connection(('10.43.0.30', 5432), timeout=1)
    except OSError:
        down += 1
for number in range(12000):
    os.path.exists('/proc/self')
sys.exit('database was down at the start' if down else 0)""", "refused", says="5432", peers=True,
       call="connect.*5432|SO_ERROR.*ECONNREFUSED"),
    py("needs-answer-503", """
import urllib.request
urllib.request.urlopen('http://10.43.0.24:8500/v1/status', timeout=2)""", "exception", says="503", peers=True,
       call="write.*503"),
    py("lock-taken", """
import fcntl, os, sys
if not os.fork():
    lock = open('/tmp/app.lock', 'w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    import time
    time.sleep(1)
    os._exit(0)
import time
time.sleep(0.3)
mine = open('/tmp/app.lock', 'w')
fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)""", "exception", "nothing", says="app.lock|BlockingIOError|unavailable",
       call="flock.*EAGAIN"),
    py("schema-invalid", """
import configparser, sys
config = configparser.ConfigParser()
config.read(['/usr/share/app/defaults.ini', '/etc/app/app.ini', '/root/.app.ini'])
if not config.get('server', 'port').isdigit():
    sys.exit("app: /etc/app/app.ini: port must be a number, not 'http'")""", "bad-option", says="app.ini|port",
       files={"/etc/app/app.ini": "[server]\nport = http\n"}, call="write.*must be a number"),
    py("master-and-worker", """
import os, sys
child = os.fork()
if not child:
    try:
        import shop_wsgi_application
    except ImportError as error:
        print('Worker failed to boot:', error, file=sys.stderr, flush=True)
        os._exit(3)
_, status = os.waitpid(child, 0)
print('Shutting down: Master', flush=True)
print('Reason: Worker failed to boot.', flush=True)
sys.exit(3)""", "missing-file", "exception", says="shop_wsgi_application", exits=3, call="write.*shop_wsgi"),
    py("logged-and-exit", """
import logging, sys
try:
    open('/etc/app/settings.toml', 'rb')
except OSError:
    logging.critical('settings cannot be read', exc_info=True)
    sys.exit(78)""", "missing-file", says="/etc/app/settings.toml", exits=78, call="settings.toml.*ENOENT"),
    py("syntax-error", "import os\nprint('starting'\nos.exit()", "exception", "bad-option", says="SyntaxError", call="write.*SyntaxError"),
    py("attribute-error", "class Cart: pass\ncart = Cart()\nprint(cart.total)", "exception", says="AttributeError|total",
       call="write.*AttributeError"),
    py("chained", """
def load():
    try:
        return open('/run/secrets/db-password').read()
    except FileNotFoundError as error:
        raise RuntimeError('no credentials') from error
load()""", "missing-file", "exception", says="db-password|no credentials", call="db-password.*ENOENT"),
    py("assertion", "workers = 0\nassert workers > 0, 'need a worker'", "exception", says="AssertionError|need a worker",
       call="write.*AssertionError"),
    py("async-refused", """
import asyncio
async def main():
    await asyncio.open_connection('10.43.0.30', 4222)
asyncio.run(main())""", "refused", says="4222", peers=True, call="connect.*4222|SO_ERROR"),
    py("pool-worker-killed", """
import concurrent.futures, os, signal
def work(number):
    os.kill(os.getpid(), signal.SIGSEGV)
with concurrent.futures.ProcessPoolExecutor(1) as pool:
    print(pool.submit(work, 1).result())""", "fault", "exception", says="SIGSEGV|BrokenProcessPool", files={"/dev/shm/": ""}, call="SIGSEGV"),
    py("interrupted", """
import signal, os, time
signal.signal(signal.SIGINT, signal.default_int_handler)
print('ready', flush=True)
while True:
    time.sleep(0.1)""", "killed-by-process", "exception", says="SIGINT|KeyboardInterrupt", exits=-2, shared_pids=True,
       act=interrupted_by_exec, call="SIGINT"),
    py("temporary-folder", """
import tempfile
tempfile.mkstemp()""", "read-only", "missing-file", "exception", says="tmp|temporary", readonly=True, user=1000, call="write.*usable temporary"),
    py("permission-on-parent", "open('/srv/private/app/config.ini')", "permission", says="/srv/private", user=1000,
       files={"/srv/private/": ("", 0o700), "/srv/private/app/config.ini": "x"}, call="config.ini.*EACCES"),
    py("stderr-closed", """
import os, sys
os.close(2)
try:
    open('/etc/app/list.txt')
except OSError:
    os._exit(6)""", "missing-file", says="/etc/app/list.txt", exits=6, call="list.txt.*ENOENT"),
    py("database-error-text", """
import sys
print('django.db.utils.OperationalError: FATAL:  password authentication failed for user "cart"', file=sys.stderr)
sys.exit(1)""", "bad-option", "exception", "nothing", says="password authentication failed", call="write.*password authentication"),
]  # fmt: skip
