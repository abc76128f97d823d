"""Keys and certificates for what deploy makes, by openssl of any version, or LibreSSL."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gadget.errors import GadgetError

#: A new certificate needs a new file with everyone who has the old one.
DAYS = 3650
_NAMES = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = more
[name]
CN = {name}
[more]
{more}
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_SERVER = "keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth"


def self_signed(option: str, name: str) -> dict[str, bytes]:
    """A server's certificate that signs itself, as tls.crt, with its key, as tls.key.

    Raises:
        GadgetError: There is no openssl; the option is what needs it.

    """
    with tempfile.TemporaryDirectory(prefix="gadget-keys-") as folder:
        at = Path(folder)
        (at / "request").write_text(_NAMES.format(name=name, more=f"subjectAltName = DNS:{name}\n{_SERVER}"))
        _self_sign(option, at, "own")
        return _pair(at, "own")


def of_both_sides(option: str, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Certificates for a server with these names and for its clients, as the data of a Secret for each.

    One authority signs for both and for nobody after that: its key is kept nowhere.

    Raises:
        GadgetError: As above.

    """
    wanted = {
        "server": f"subjectAltName = {', '.join(f'DNS:{name}' for name in names)}\n{_SERVER}",
        "client": "keyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth",
    }
    with tempfile.TemporaryDirectory(prefix="gadget-keys-") as folder:
        at = Path(folder)
        authority = "basicConstraints = critical, CA:true, pathlen:0\nkeyUsage = critical, keyCertSign"
        (at / "request").write_text(_NAMES.format(name="kubectl-gadget hubble", more=authority))
        _self_sign(option, at, "ca")
        for name, more in wanted.items():
            (at / "request").write_text(_NAMES.format(name=names[0] if name == "server" else name, more=more))
            request = ("req", "-new", "-config", "request", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr")
            sign = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
            how = ("-days", str(DAYS), "-extfile", "request", "-extensions", "more", "-out", f"{name}.crt")
            _openssl(option, at, *request)
            _openssl(option, at, *sign, *how)
        shared = {"ca.crt": (at / "ca.crt").read_bytes()}
        server, client = (as_data(_pair(at, name) | shared) for name in wanted)
        return server, client


def as_data(files: dict[str, bytes]) -> dict[str, str]:
    """Files as the data of a Secret."""
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def _pair(at: Path, name: str) -> dict[str, bytes]:
    return {"tls.crt": (at / f"{name}.crt").read_bytes(), "tls.key": (at / f"{name}.key").read_bytes()}


def _self_sign(option: str, at: Path, name: str) -> None:
    _openssl(option, at, "req", "-x509", "-config", "request", *_KEY, "-days", str(DAYS), "-keyout", f"{name}.key",
             "-out", f"{name}.crt")  # fmt: skip


def _openssl(option: str, at: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], cwd=at, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise GadgetError(f"{option}: the certificate is made by openssl, which is not installed here") from None
    if done.returncode:
        raise GadgetError(f"{option}: openssl makes no certificate: {done.stderr.strip()}")
