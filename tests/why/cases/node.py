"""Programs in JavaScript, for Node."""

from __future__ import annotations

from typing import Any

from tests.why.case import Case
from tests.why.cases.python import resolver

NODE = "/usr/bin/node"


def js(name: str, source: str, *causes: str, **options: Any) -> Case:
    """A script that Node runs."""
    files = {"/app/main.js": f"{source.strip()}\n", **options.pop("files", {})}
    command = options.pop("command", (NODE, "/app/main.js"))
    return Case(f"js-{name}", "node", command, causes, files=files, usr=True, **options)


CASES = [
    js("module-missing", "const express = require('express');\nexpress().listen(80);", "missing-file", "exception", says="express",
       call="write.*Cannot find module"),
    js("file-missing", "const routes = require('./routes');", "missing-file", "exception", says="routes", call="routes.*ENOENT"),
    js("script-missing", "", "missing-file", "exception", says="/app/dist/server.js", command=(NODE, "/app/dist/server.js"),
       call="/app/dist/server.js.*ENOENT"),
    js("config-missing", "const config = JSON.parse(require('fs').readFileSync('/etc/app/config.json'));", "missing-file",
       "exception", says="/etc/app/config.json", call="config.json.*ENOENT"),
    js("rejection", """
const net = require('net');
function dial() {
  return new Promise((resolve, reject) => net.connect(5432, '10.43.0.30').on('connect', resolve).on('error', reject));
}
dial().then(() => console.log('connected'));""", "refused", says="10.43.0.30.*5432", peers=True,
       call="(connect|getsockopt).*"),
    js("port-taken", "require('http').createServer(() => {}).listen(9090, '0.0.0.0');", "address-in-use", says="9090",
       peers=True, call="bind.*9090|listen.*EADDRINUSE"),
    js("low-port", "require('http').createServer(() => {}).listen(80);", "capability", "permission", says="80", user=1000,
       call="bind.*EACCES"),
    js("type-error", "const cart = undefined;\nconsole.log('starting');\nconsole.log(cart.items.length);", "exception",
       says="TypeError|items", call="write.*TypeError"),
    js("json-invalid", "JSON.parse(require('fs').readFileSync('/etc/app.json', 'utf8'));", "exception", "bad-option",
       says="SyntaxError|JSON", files={"/etc/app.json": "{port: 80}"}, call="write.*SyntaxError"),
    js("heap", "const cache = [];\nfor (;;) cache.push(new Array(10000).fill('x' + cache.length));", "exception", "abort",
       "memory", says="heap|memory", command=(NODE, "--max-old-space-size=24", "/app/main.js"), exits=-6, shared_pids=True,
       call="write.*heap out of memory"),
    js("variable-missing", """
const fs = require('fs');
if (fs.existsSync('/app/.env')) console.log('read .env');
if (!process.env.DATABASE_URL) {
  console.error('DATABASE_URL is not set');
  process.exit(1);
}""", "bad-option", "nothing", says="DATABASE_URL", call="write.*DATABASE_URL"),
    js("name-unknown", "require('http').get('http://inventory/prices');", "dns", says="inventory", peers=True,
       files=resolver("nameserver 10.43.0.10", "search shop.svc.cluster.local"), call="write.*ENOTFOUND"),
    js("certificate-unknown", "require('https').get('https://10.43.0.23/');", "tls", says="certificate|TLS", peers=True,
       call="write.*(SELF_SIGNED|self.signed)"),
    js("not-permitted", "require('fs').writeFileSync('/data/state.json', '{}');", "permission", says="/data", user=1000,
       files={"/data/": ""}, call="state.json.*EACCES"),
    js("caught", """
const fs = require('fs');
fs.promises.readFile('/var/run/secrets/token').catch(error => {
  console.error('startup failed');
  process.exitCode = 7;
});""", "missing-file", says="/var/run/secrets/token", exits=7, call="token.*ENOENT"),
    js("reset", """
const socket = require('net').connect(5432, '10.43.0.21', () => socket.write('startup'));""", "reset",
       says="10.43.0.21|5432", peers=True, call="ECONNRESET"),
    js("no-answer", """
const socket = require('net').connect(6379, '10.99.0.9');
socket.setTimeout(600, () => { console.error('redis: connect timeout'); process.exit(1); });""", "no-answer",
       says="10.99.0.9.*6379", peers=True, call="connect.*6379"),
    js("rejection-text", "Promise.reject(new Error('queue cart.orders does not exist'));\nsetTimeout(() => {}, 30000);", "exception",
       says="cart.orders", call="write.*cart.orders"),
    js("esm-missing", "import { total } from './total.mjs';\nconsole.log(total);", "missing-file", "exception", says="total.mjs",
       command=(NODE, "/app/main.mjs"), files={"/app/main.mjs": "import { total } from './total.mjs';\nconsole.log(total);\n"},
       call="total.mjs.*ENOENT"),
    js("syntax-error", "const port = ;\n", "exception", "bad-option", says="SyntaxError", call="write.*SyntaxError"),
    js("child-missing", "const child = require('child_process').spawn('convert-images-shop', ['a.png']);", "missing-program",
       says="convert-images-shop", call="exec.*convert-images-shop.*ENOENT"),
    js("cluster-worker", """
const cluster = require('cluster');
if (cluster.isPrimary) {
  cluster.fork();
  cluster.on('exit', (worker, code) => { console.error('worker ended with', code); process.exit(code); });
} else {
  require('fs').readFileSync('/srv/model.json');
}""", "missing-file", "exception", says="/srv/model.json", call="model.json.*ENOENT"),
    js("unsettled", "await new Promise(() => {});", "exception", "nothing", "clean-exit", exits=13, command=(NODE, "/app/main.mjs"),
       files={"/app/main.mjs": "console.log('starting');\nawait new Promise(() => {});\n"}, says="", call="exit_group"),
    js("bad-option", "", "bad-option", says="--max-old-space", command=(NODE, "--max-old-spaces=100", "/app/main.js"), exits=9,
       call="write.*bad option"),
    js("read-only", "require('fs').mkdirSync('/app/uploads');", "read-only", says="/app/uploads", readonly=True, call="mkdir.*EROFS"),
]  # fmt: skip
