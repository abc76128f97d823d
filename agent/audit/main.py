"""gadget-agent-audit: the command. `kubectl gadget deploy --k8s-audit` runs it in a pod."""

from __future__ import annotations

import os
import ssl
from contextlib import closing
from pathlib import Path

import click

from agent.answering import GRACE_SECONDS, Answering, serve
from agent.audit.receiver import NAME, PATH, Receiver, ReceiverSettings
from agent.daemon import Stopped, run
from agent.files import read_regular
from agent.listen import close_to_others, place
from agent.logs import LEVELS, log_to_stderr
from gadget import __version__
from gadget.errors import UsageError
from gadget.text import host_and_port

LEAST_TOKEN, MOST_TOKEN = 16, 4096
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("gadget-agent-audit", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--address",
    default="0.0.0.0:9765",
    metavar="HOST:PORT",
    show_default=True,
    help=f"Where the API server posts audit events, to https://HOST:PORT{PATH}.",
)
@click.option("--cert", type=_FILE, required=True, help="Our certificate for that, in PEM.")
@click.option("--key", type=_FILE, required=True, help="Its key.")
@click.option(
    "--token-file", type=_FILE, required=True, help="The token that the API server shows; nobody else is believed."
)
@click.option(
    "--detect",
    "rules",
    multiple=True,
    default=["default"],
    metavar="DIR",
    show_default=True,
    help="Rules: the .yaml files of a folder, or those that come with it. Repeatable.",
)
@click.option(
    "--listen",
    default="127.0.0.1:7070",
    metavar="HOST:PORT|unix:///PATH",
    show_default=True,
    help="Where `kubectl gadget alerts` asks for the alerts.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/gadget"),
    show_default=True,
    help="Where alerts are kept.",
)
@click.option(
    "--keep", type=click.IntRange(1), default=16, metavar="MIB", show_default=True, help="What they may take."
)
@click.option("--redact", multiple=True, metavar="REGEX", help="Mask what matches in alerts. Repeatable.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", help="What to log.")
@click.version_option(__version__)
def command(
    address: str,
    cert: Path,
    key: Path,
    token_file: Path,
    rules: tuple[str, ...],
    listen: str,
    state: Path,
    keep: int,
    redact: tuple[str, ...],
    log_level: str,
) -> None:  # fmt: skip
    """Judge the audit events of a Kubernetes API server by rules, and keep the alerts. Needs no rights."""
    os.umask(0o077)
    log_to_stderr(log_level)
    where = host_and_port(address)
    if where is None:
        raise UsageError(f"--address {address}: want HOST:PORT")
    token = read_regular(token_file, MOST_TOKEN, follow=True).decode(errors="replace").strip()
    if len(token) < LEAST_TOKEN:
        raise UsageError(f"--token-file {token_file}: a token has {LEAST_TOKEN} letters at least")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        tls.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise UsageError(f"--cert {cert}, --key {key}: {error}") from None
    stopped = Stopped()
    with place(listen), closing(Receiver(ReceiverSettings(where, token, tls, rules, state, keep, redact))) as receiver:
        service = Answering(NAME, {NAME: receiver})
        server = serve(listen, service)
        close_to_others(listen)
        click.echo(f"listening on {listen}, for audit events on port {receiver.port}")
        stopped.wait()
        service.finish()
        server.stop(GRACE_SECONDS).wait(GRACE_SECONDS + 1)


def main() -> None:
    """Run the command; errors are one line and their exit code."""
    run(command)
