"""Programs in Go."""

from __future__ import annotations

import re
from typing import Any

from tests.why.case import Case

PACKAGES = {"bufio": "bufio", "context": "context", "tls": "crypto/tls", "json": "encoding/json", "errors": "errors", "flag": "flag",
            "fmt": "fmt", "io": "io", "log": "log", "net": "net", "http": "net/http", "os": "os", "exec": "os/exec",
            "signal": "os/signal", "strconv": "strconv", "strings": "strings", "sync": "sync", "syscall": "syscall",
            "time": "time", "debug": "runtime/debug"}  # fmt: skip


def program(source: str) -> str:
    """A whole program; what it imports is found."""
    used = [path for name, path in PACKAGES.items() if re.search(rf"(?<![\w.\"/]){name}\.[A-Z]", source)]
    return "package main\n\nimport (\n" + "".join(f'\t"{path}"\n' for path in used) + f")\n\n{source}\n"


def go(name: str, source: str, *causes: str, **options: Any) -> Case:
    """A static program in Go; without a function main, source is its body."""
    whole = source if "func main()" in source else f"func main() {{\n{source}\n}}"
    options.setdefault("exits", 2)
    return Case(f"go-{name}", "go", options.pop("command", ("/app/server",)), causes, source=program(whole), **options)


RESOLVER = {"/etc/nsswitch.conf": "hosts: files dns\n"}

CASES = [
    go("nil-pointer", """
type shop struct{ prices map[string]int }

func (s *shop) price(name string) int { return s.prices[name] }

func main() {
	var s *shop
	log.Println("starting")
	log.Println(s.price("tea"))
}""", "exception", "fault", says="nil pointer", call="SIGSEGV|write.*nil pointer"),
    go("index", """
	parts := strings.Split(os.Getenv("HOSTNAME"), ".")
	fmt.Println("ordinal", parts[3])""", "exception", says="index out of range", call="write.*index out of range"),
    go("deadlock", """
	var wait sync.WaitGroup
	wait.Add(2)
	go func() { fmt.Println("loaded"); wait.Done() }()
	wait.Wait()""", "exception", "hang-lock", says="deadlock|asleep", call="write.*asleep"),
    go("config-missing", """
	if _, err := os.ReadFile("/etc/server/defaults.yaml"); err != nil {
		log.Println("no defaults, going on")
	}
	data, err := os.ReadFile("/etc/server/config.yaml")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(data))""", "missing-file", says="/etc/server/config.yaml", exits=1, call="config.yaml.*ENOENT"),
    go("port-taken", 'log.Fatal(http.ListenAndServe(":9090", nil))', "address-in-use", says="9090", exits=1,
       peers=True, call="bind.*9090.*EADDRINUSE"),
    go("refused-retries", """
	for try := 1; try <= 40; try++ {
		connection, err := net.Dial("tcp", "10.43.0.30:5432")
		if err == nil {
			connection.Close()
			return
		}
		log.Printf("database not ready (%d of 40): %v", try, err)
		time.Sleep(20 * time.Millisecond)
	}
	log.Fatal("giving up")""", "refused", says="10.43.0.30.*5432", exits=1, peers=True, call="connect.*5432"),
    go("no-such-name", """
	_, err := http.Get("http://inventory/prices")
	if err != nil {
		fmt.Fprintln(os.Stderr, "fatal:", err)
		os.Exit(1)
	}""", "dns", says="inventory", exits=1, peers=True,
       files={"/etc/resolv.conf": "nameserver 10.43.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
              **RESOLVER}, call="(read|recv).*inventory"),
    go("name-server-absent", """
	_, err := net.LookupHost("redis.shop.svc.cluster.local")
	if err != nil {
		log.Fatal(err)
	}""", "dns", says="redis.shop|10.43.0.12", exits=1, peers=True,
       files={"/etc/resolv.conf": "nameserver 10.43.0.12\noptions attempts:1 timeout:1\n", **RESOLVER},
       call="(read|recv|write).*ECONNREFUSED"),
    go("no-answer", """
	ready, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var dialer net.Dialer
	if _, err := dialer.DialContext(ready, "tcp", "10.99.0.7:5432"); err != nil {
		log.Fatal("database: ", err)
	}""", "no-answer", says="10.99.0.7.*5432", exits=1, peers=True, call="connect.*5432"),
    go("silent-server", """
	connection, err := net.Dial("tcp", "10.43.0.20:6379")
	if err != nil {
		log.Fatal(err)
	}
	connection.SetDeadline(time.Now().Add(700 * time.Millisecond))
	fmt.Fprintf(connection, "PING\\r\\n")
	if _, err = bufio.NewReader(connection).ReadString('\\n'); err != nil {
		log.Fatal("redis: ", err)
	}""", "no-answer", says="10.43.0.20|6379", exits=1, peers=True, call="read.*EAGAIN"),
    go("certificate-unknown", """
	_, err := http.Get("https://10.43.0.23/")
	if err != nil {
		log.Fatal(err)
	}""", "tls", says="certificate|tls|x509", exits=1, peers=True, call="write.*(x509|certificate)"),
    go("plain-text-port", """
	_, err := tls.Dial("tcp", "10.43.0.22:443", nil)
	if err != nil {
		log.Fatal(err)
	}""", "tls", says="tls|TLS", exits=1, peers=True, call="write.*tls"),
    go("goroutine-panics", """
	orders := map[string]chan string(nil)
	go func() {
		time.Sleep(30 * time.Millisecond)
		orders["tea"] = make(chan string)
	}()
	http.ListenAndServe("127.0.0.1:8080", nil)""", "exception", says="nil map", call="write.*nil map"),
    go("usage", """
	port := flag.Int("port", 8080, "where to listen")
	flag.Parse()
	fmt.Println(*port)""", "bad-option", says="listen-port", command=("/app/server", "--listen-port=80"),
       call="write.*listen-port"),
    go("key-unreadable", """
	if _, err := os.Open("/etc/server/key.pem"); err != nil {
		fmt.Fprint(os.Stderr, "fatal: ")
		fmt.Fprint(os.Stderr, "no key")
		fmt.Fprintln(os.Stderr)
		os.Exit(1)
	}""", "permission", says="/etc/server/key.pem", exits=1, user=1000, files={"/etc/server/key.pem": ("x", 0o600)},
       call="key.pem.*EACCES"),
    go("no-memory", """
	var cache [][]byte
	for {
		block := make([]byte, 8<<20)
		for at := 0; at < len(block); at += 4096 {
			block[at] = 1
		}
		cache = append(cache, block)
	}""", "memory", "exception", says="memory", rlimits={"AS": 1 << 30}, call="mmap.*ENOMEM"),
    go("json-invalid", """
	var limits struct{ Rate int }
	data, err := os.ReadFile("/etc/server/limits.json")
	if err == nil {
		err = json.Unmarshal(data, &limits)
	}
	if err != nil {
		panic(fmt.Errorf("limits.json: %w", err))
	}""", "exception", "bad-option", says="limits.json", files={"/etc/server/limits.json": '{"rate": "fast"}'},
       call="write.*limits.json"),
    go("helper-missing", """
	out, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(out))""", "missing-program", says="git", exits=1, call="git.*ENOENT"),
    go("token-then-ticks", """
	_, missed := os.ReadFile("/var/run/secrets/cart/token")
	go func() {
		for {
			os.Getwd()
			os.Stat("/proc/self")
		}
	}()
	time.Sleep(600 * time.Millisecond)
	if missed != nil {
		log.Fatal("cannot log in")
	}""", "missing-file", says="/var/run/secrets/cart/token", exits=1, call="token.*ENOENT"),
    go("descriptors-leak", """
	for {
		if _, err := net.Listen("tcp", "127.0.0.1:0"); err != nil {
			log.Fatal(err)
		}
	}""", "descriptors", says="open files|descriptor|EMFILE", exits=1, rlimits={"NOFILE": 48}, call="EMFILE"),
    go("panics-with-error", """
	data, err := os.ReadFile("/etc/server/tls.crt")
	if err != nil {
		panic(err)
	}
	fmt.Println(len(data))""", "missing-file", "exception", says="/etc/server/tls.crt", call="tls.crt.*ENOENT"),
    go("number-invalid", """
	port, err := strconv.Atoi(os.Getenv("PORT"))
	if err != nil {
		log.Fatalf("PORT: %v", err)
	}
	fmt.Println(port)""", "bad-option", says="PORT", exits=1, env=("PORT=http",), call="write.*PORT"),
    go("stack-overflow", """
func deep(n int) int { return deep(n+1) + 1 }

func main() {
	debug.SetMaxStack(8 << 20)
	fmt.Println(deep(0))
}""", "exception", says="stack", call="write.*stack"),
    go("worker-thread-exits", """
	failed := make(chan error)
	go func() { _, err := os.Stat("/srv/data/index"); failed <- err }()
	go http.ListenAndServe("127.0.0.1:8080", nil)
	log.Println("serving")
	if err := <-failed; err != nil {
		log.Println("indexer:", err)
		os.Exit(5)
	}""", "missing-file", says="/srv/data/index", exits=5, call="/srv/data/index.*ENOENT"),
    go("read-only", """
	if err := os.MkdirAll("/var/lib/server/cache", 0o755); err != nil {
		log.Fatal(err)
	}""", "read-only", says="/var", exits=1, readonly=True, call="mkdir.*EROFS"),
    go("disk-full", """
	file, _ := os.Create("/data/wal")
	block := make([]byte, 32<<10)
	for {
		if _, err := file.Write(block); err != nil {
			log.Fatal(err)
		}
	}""", "disk", says="/data", exits=1, tmpfs={"/data": "size=256k"}, call="write.*ENOSPC"),
    go("peer-hangs-up", """
	connection, err := net.Dial("tcp", "10.43.0.25:5432")
	if err != nil {
		log.Fatal(err)
	}
	connection.Write([]byte("startup"))
	if _, err = io.ReadAll(connection); err == nil {
		log.Fatal("database closed the connection unexpectedly")
	}""", "reset", says="10.43.0.25|5432|closed", exits=1, peers=True, call="write.*closed"),
]  # fmt: skip
