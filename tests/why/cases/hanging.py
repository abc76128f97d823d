"""Programs that go on, and should not."""

from __future__ import annotations

from dataclasses import replace

from tests.why.case import Case, Kind
from tests.why.cases.c import c, main
from tests.why.cases.go import go
from tests.why.cases.java import java
from tests.why.cases.node import js
from tests.why.cases.python import py, resolver
from tests.why.cases.shell import sh

_CASES = [
    c("mutex", """
static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER, second = PTHREAD_MUTEX_INITIALIZER;
static void *other(void *unused)
{
	pthread_mutex_lock(&second);
	usleep(50000);
	pthread_mutex_lock(&first);
	return NULL;
}
""" + main("""
	pthread_t thread;
	pthread_mutex_lock(&first);
	pthread_create(&thread, NULL, other, NULL);
	usleep(50000);
	pthread_mutex_lock(&second);"""), "hang-lock", says="lock|futex"),
    py("lock", "import threading\nlock = threading.Lock()\nlock.acquire()\nprint('starting', flush=True)\nlock.acquire()",
       "hang-lock", says="lock|futex"),
    java("monitors", """
        Object a = new Object(), b = new Object();
        Thread t = new Thread(() -> { synchronized (b) { nap(); synchronized (a) { } } }); t.start();
        synchronized (a) { nap(); synchronized (b) { } }""", "hang-lock", says="lock|futex", runs=3.0,
         members="static void nap() { try { Thread.sleep(200); } catch (InterruptedException e) { } }"),
    sh("child", "echo starting\n/bin/sleep 60\necho done", "hang-child", says="sleep|child"),
    c("child-lost", main("if (!fork()) { for (;;) pause(); } wait(NULL);"), "hang-child", says="child"),
    py("peer-silent", """
import socket
redis = socket.create_connection(('10.43.0.20', 6379))
redis.sendall(b'PING\\r\\n')
redis.recv(100)""", "hang-read", says="10.43.0.20|6379", peers=True),
    c("connects", main('dial("10.99.0.7", 5432, 0);'), "hang-connect", says="10.99.0.7.*5432", peers=True),
    js("connects", "require('net').connect(5432, '10.99.0.9');", "hang-connect", says="10.99.0.9.*5432", peers=True),
    sh("flock", """
echo starting
( /usr/bin/flock 9; exec sleep 60 ) 9>/tmp/app.lock &
sleep 0.2
exec 8>/tmp/app.lock
/usr/bin/flock 8
echo running""", "hang-lock", "hang-child", says="lock", usr=True),
    c("record-lock", main("""
	struct flock whole = {.l_type = F_WRLCK};
	int fd = open("/tmp/db.lock", O_CREAT | O_RDWR, 0600);
	if (!fork()) {
		fcntl(fd, F_SETLKW, &whole);
		for (;;) pause();
	}
	usleep(100000);
	fcntl(fd, F_SETLKW, &whole);"""), "hang-lock", says="db.lock|lock"),
    c("busy", main('volatile long n = 0; write(1, "starting\\n", 9); for (;;) n++;'), "hang-busy"),
    c("busy-polling", main("""
	char text[10];
	int fds[2];
	pipe(fds);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	for (;;) {
		read(fds[0], text, 10);
		usleep(10);
	}"""), "hang-busy"),
    sh("fifo", "mkfifo /tmp/jobs\necho starting\nexec cat /tmp/jobs", "hang-read", says="/tmp/jobs"),
    c("fifo-open", main('mkfifo("/tmp/jobs", 0600); open("/tmp/jobs", O_RDONLY);'), "hang-read", says="/tmp/jobs"),
    c("pipe", main("char x; int fds[2]; pipe(fds); read(fds[0], &x, 1);"), "hang-read", says="pipe"),
    go("channel", """
	jobs := make(chan string)
	go http.ListenAndServe("127.0.0.1:8080", nil)
	fmt.Println("starting")
	<-jobs""", "nothing", "hang-lock"),
    go("silent-server", """
	connection, err := net.Dial("tcp", "10.43.0.20:6379")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(connection, "PING\\r\\n")
	bufio.NewReader(connection).ReadString('\\n')""", "hang-read", says="10.43.0.20|6379", peers=True),
    java("silent-server", """
        Socket s = new Socket("10.43.0.20", 6379); s.getOutputStream().write(1); s.getInputStream().read();""", "hang-read",
         says="10.43.0.20|6379", peers=True, runs=2.5),
    py("name-server-silent", "import socket\nsocket.getaddrinfo('redis.shop', 6379)", "dns", "hang-read", says="redis.shop|10.43.0.11",
       peers=True, files=resolver("nameserver 10.43.0.11", "options timeout:20 attempts:1"), runs=2.0),
    sh("wget", "wget -q -O - http://10.43.0.20:6379/", "hang-read", says="10.43.0.20|6379", peers=True),
    py("asyncio-silent", """
import asyncio
async def main():
    reader, writer = await asyncio.open_connection('10.43.0.20', 6379)
    writer.write(b'PING')
    await reader.read(10)
asyncio.run(main())""", "hang-read", says="10.43.0.20|6379", peers=True),
    py("child", "import subprocess\nsubprocess.run(['/bin/sleep', '60'])", "hang-child", says="sleep|child"),
    go("mutex", """
	var lock sync.Mutex
	lock.Lock()
	go http.ListenAndServe("127.0.0.1:8080", nil)
	lock.Lock()""", "hang-lock", "nothing"),
    c("epoll-silent", """
#include <sys/epoll.h>
""" + main("""
	int fd = dial("10.43.0.20", 6379, 0), poll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN};
	write(fd, "PING", 4);
	epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
	epoll_wait(poll, &event, 1, -1);"""), "hang-read", "nothing", says="", peers=True),
    sh("waits-for-file", "while [ ! -e /shared/ready ]; do sleep 0.1; done", "missing-file", "hang-busy", "nothing",
       runs=2.0),
]  # fmt: skip

CASES: list[Case] = [
    replace(case, name=f"hang-{case.name}", kind=Kind.HANG, exits=None, runs=case.runs or 1.5) for case in _CASES
]
