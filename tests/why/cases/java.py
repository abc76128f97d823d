"""Programs in Java."""

from __future__ import annotations

from typing import Any

from tests.why.case import Case
from tests.why.cases.python import resolver
from tests.why.cases.shell import kill

JAVA = "/usr/bin/java"
#: What makes a small program start at once.
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m")


def java(name: str, body: str, *causes: str, **options: Any) -> Case:
    """A program whose main method is body."""
    extra = options.pop("members", "")
    source = f"""
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.util.*;
public class Main {{
    {extra}
    public static void main(String[] args) throws Exception {{
        {body}
    }}
}}
"""
    options.setdefault("command", (JAVA, *QUICK, "-cp", "/app", "Main"))
    return Case(f"java-{name}", "java", causes=causes, source=source, usr=True, **options)


CASES = [
    java("null", 'Map<String, String> prices = new HashMap<>(); System.out.println(prices.get("tea").length());', "exception",
         says="NullPointerException", call="write.*NullPointer"),
    java("class-missing", "", "missing-file", "exception", says="shop.Server",
         command=(JAVA, *QUICK, "-cp", "/app:/app/lib/*", "shop.Server"), call="write.*(find or load|ClassNotFound)"),
    java("jar-missing", "", "missing-file", says="/app/cart.jar", command=(JAVA, *QUICK, "-jar", "/app/cart.jar"),
         call="cart.jar.*ENOENT"),
    java("config-missing", """
        Properties p = new Properties();
        if (new File("/etc/app/override.properties").exists()) System.out.println("override");
        p.load(new FileInputStream("/etc/app/app.properties"));""", "missing-file", "exception", says="/etc/app/app.properties",
         call="app.properties.*ENOENT"),
    java("refused", 'new Socket("10.43.0.30", 5432).getOutputStream();', "refused", says="10.43.0.30|5432", peers=True,
         call="ECONNREFUSED|connect.*5432"),
    java("port-taken", "new ServerSocket(9090).accept();", "address-in-use", says="9090", peers=True, call="bind.*EADDRINUSE"),
    java("name-unknown", 'new URL("http://inventory.shop/prices").openStream();', "dns", says="inventory.shop", peers=True,
         files=resolver("nameserver 10.43.0.10"), call="write.*UnknownHost"),
    java("heap", "List<byte[]> cache = new ArrayList<>(); while (true) cache.add(new byte[1 << 20]);", "exception", "memory",
         says="OutOfMemoryError|heap", call="write.*OutOfMemory"),
    java("oom-killed", "List<byte[]> cache = new ArrayList<>(); while (true) { byte[] b = new byte[1 << 20]; Arrays.fill(b, (byte) 1); cache.add(b); }",
         "oom", says="memory", exits=-9, memory=96 << 20, command=(JAVA, *QUICK[:2], "-Xmx512m", "-cp", "/app", "Main"),
         call="SIGKILL"),
    java("stack", "System.out.println(deep(0));", "exception", says="StackOverflowError",
         members="static int deep(int n) { return deep(n + 1) + 1; }", call="write.*StackOverflow"),
    java("option", "", "bad-option", says="UseShopGC", command=(JAVA, "-XX:+UseShopGC", "-cp", "/app", "Main"),
         call="write.*UseShopGC"),
    java("heap-reserve", "", "memory", "bad-option", says="heap|memory", rlimits={"AS": 2 << 30},
         command=(JAVA, "-Xms3g", "-Xmx3g", "-XX:-UseCompressedOops", "-cp", "/app", "Main"), call="mmap.*ENOMEM"),
    java("certificate-unknown", 'new URL("https://10.43.0.23/").openStream();', "tls", says="PKIX|certif|TLS|SSL", peers=True,
         call="write.*(SSLHandshake|PKIX)"),
    java("silent-server", """
        Socket s = new Socket("10.43.0.20", 6379); s.setSoTimeout(500); s.getOutputStream().write("PING\\\\r\\\\n".getBytes());
        s.getInputStream().read();""".replace("\\\\", "\\"), "no-answer", says="10.43.0.20|6379", peers=True, call="poll"),
    java("exits-three", """
        try { Files.readString(Path.of("/etc/app/licence.key")); }
        catch (IOException e) { System.err.println("no valid licence"); System.exit(3); }""", "missing-file",
         says="/etc/app/licence.key", exits=3, call="licence.key.*ENOENT"),
    java("initializer", "System.out.println(Holder.RATE);", "exception", says="NumberFormatException|ExceptionInInitializer",
         members='static class Holder { static final int RATE = Integer.parseInt("12,5"); }', call="write.*(Initializer|NumberFormat)"),
    java("thread-ends", """
        Thread t = new Thread(() -> { throw new IllegalStateException("no queue"); }, "consumer");
        t.setUncaughtExceptionHandler((thread, error) -> { error.printStackTrace(); System.exit(1); });
        t.start(); Thread.sleep(30000);""", "exception", says="IllegalStateException|no queue", call="write.*IllegalState"),
    java("not-permitted", 'Files.writeString(Path.of("/data/index"), "x");', "permission", says="/data", user=1000,
         files={"/data/": "", "/tmp/": ("", 0o1777)}, call="/data/index.*EACCES"),
    java("jar-damaged", "", "bad-option", "missing-file", "exception", says="cart.jar", command=(JAVA, *QUICK, "-jar", "/app/cart.jar"),
         files={"/app/cart.jar": "no archive"}, call="write.*cart.jar"),
    java("cause-within", """
        try { new Socket("10.43.0.30", 9092); }
        catch (IOException e) { throw new RuntimeException("cannot create the producer", e); }""", "refused", says="9092|10.43.0.30",
         peers=True, call="ECONNREFUSED|connect.*9092"),
    java("two-retries", """
        for (int i = 0; i < 12; i++) {
            try { new Socket().connect(new InetSocketAddress("10.43.0.30", 5672), 300); return; }
            catch (IOException e) { System.err.println("broker: " + e.getMessage()); Thread.sleep(30); }
        }
        System.exit(2);""", "refused", says="5672", exits=2, peers=True, call="connect.*5672"),
    java("disk-full", """
        try (OutputStream out = new FileOutputStream("/data/index")) { while (true) out.write(new byte[8192]); }""", "disk", says="/data",
         tmpfs={"/data": "size=256k"}, call="write.*ENOSPC"),
    java("killed-from-outside", 'System.out.println("ready"); Thread.sleep(30000);', "killed", says="SIGKILL", exits=-9, act=kill,
         call="SIGKILL"),
]  # fmt: skip
