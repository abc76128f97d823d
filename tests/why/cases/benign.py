"""Programs about which nothing has to be said."""

from __future__ import annotations

from dataclasses import replace

from tests.why.case import Case, Kind, Running
from tests.why.cases.c import c, main
from tests.why.cases.go import go
from tests.why.cases.java import java
from tests.why.cases.node import js
from tests.why.cases.python import py, resolver
from tests.why.cases.shell import sh

FINE = ("nothing", "clean-exit", "killed-deletion")


def stopped(running: Running) -> None:
    running.says("ready")
    running.signal("TERM")
    running.ends(5.0)


_CASES = [
    sh("job", "echo counting\nwc -l /proc/mounts > /tmp/result\necho done", *FINE, exits=0),
    sh("job-with-misses", """
for name in a b c d; do [ -e /etc/job/$name ] && . /etc/job/$name; done
cat /etc/motd 2>/dev/null
echo done
exit 0""", *FINE, exits=0),
    py("many-imports", "import json, logging, asyncio, http.server, email, sqlite3\nprint('done')", *FINE, exits=0),
    py("stops", """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('ready', flush=True)
while True:
    time.sleep(0.1)""", *FINE, exits=0, act=stopped),
    java("stops", 'System.out.println("ready"); Thread.sleep(30000);', *FINE, exits=143, act=stopped),
    js("stops", """
const server = require('http').createServer(() => {}).listen(8080, () => console.log('ready'));
process.on('SIGTERM', () => server.close(() => process.exit(0)));""", *FINE, exits=0, act=stopped),
    go("stops", """
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println("ready")
	<-stop
	fmt.Println("bye")""", *FINE, exits=0, act=stopped),
    c("ended-by-term", main('puts("ready"); fflush(stdout); for (;;) pause();'), *FINE, exits=-15, shared_pids=True, act=stopped),
    sh("exit-143", "trap 'exit 143' TERM\necho ready\nwhile true; do sleep 0.1; done", *FINE, exits=143, act=stopped),
    py("retries-then-works", """
import socket, time
for port in (1, 2, 3, 80):
    try:
        socket.create_connection(('10.43.0.24', port), timeout=1)
        print('connected')
    except OSError as error:
        print(error)
        time.sleep(0.05)""", *FINE, exits=0, peers=True),
    c("child-crashes", main("""
	if (!fork())
		*(volatile int *)0 = 1;
	wait(NULL);
	puts("one job failed, the others are done");
	return 0;"""), *FINE, exits=0),
    go("recovers", """
	for i := 0; i < 3; i++ {
		func() {
			defer func() { log.Println("recovered:", recover()) }()
			var p *int
			*p = i
		}()
	}
	fmt.Println("done")""", *FINE, exits=0),
    py("server-logs-errors", """
import logging, socket, time
while True:
    try:
        open('/var/cache/prices')
    except OSError:
        logging.exception('no cache')
    try:
        socket.create_connection(('10.43.0.30', 9411), timeout=1)
    except OSError as error:
        logging.error('tracing: %s', error)
    time.sleep(0.2)""", "nothing", "missing-file", "refused", exits=None, peers=True, runs=2.0),
    js("ended-by-term", "require('http').createServer(() => {}).listen(8080, () => console.log('ready'));", *FINE, exits=-15,
       shared_pids=True, act=stopped),
    sh("cleans-up", """
trap 'rm -f /tmp/none; cat /etc/none 2>/dev/null; echo bye; exit 0' TERM
echo ready
while true; do sleep 0.1; done""", *FINE, exits=0, act=stopped),
    py("term-raises", """
import signal, sys, time
def stop(number, frame):
    raise SystemExit(143)
signal.signal(signal.SIGTERM, stop)
print('ready', flush=True)
time.sleep(60)""", *FINE, exits=143, act=stopped),
    sh("tail", "exec tail -f /dev/null", "nothing", exits=None),
    sh("cron", "while true; do [ -e /etc/cron.tab ] && . /etc/cron.tab; date > /tmp/beat; sleep 0.3; done", "nothing", "hang-child",
       exits=None),
    py("asyncio-serves", """
import asyncio
async def main():
    server = await asyncio.start_server(lambda r, w: None, '127.0.0.1', 8080)
    await server.serve_forever()
asyncio.run(main())""", "nothing", exits=None),
    sh("sleeps", "echo started\nexec sleep 600", "nothing", exits=None),
    c("pauses", main('puts("pause"); fflush(stdout); for (;;) pause();'), "nothing", exits=None),
    py("serves", """
import http.server
print('ready', flush=True)
http.server.ThreadingHTTPServer(('127.0.0.1', 8080), http.server.BaseHTTPRequestHandler).serve_forever()""", "nothing", exits=None,
       files=resolver("nameserver 127.0.0.1")),
    js("serves", "require('http').createServer(() => {}).listen(8080);", "nothing", exits=None, runs=2.0),
    go("serves", 'http.ListenAndServe("127.0.0.1:8080", nil)', "nothing", exits=None),
    java("serves", "new ServerSocket(8080).accept();", "nothing", exits=None, runs=2.5),
    py("waits-for-work", """
import socket, threading, queue
jobs = queue.Queue()
for number in range(4):
    threading.Thread(target=jobs.get).start()
print('ready', flush=True)
socket.create_server(('127.0.0.1', 8080)).accept()""", "nothing", exits=None),
]  # fmt: skip

CASES: list[Case] = [
    replace(case, name=f"fine-{case.name}", kind=Kind.BENIGN, runs=case.runs or 1.5) for case in _CASES
]
