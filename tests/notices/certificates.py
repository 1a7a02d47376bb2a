"""Certificates for the tests of TLS, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def server_context(folder: Path, names: str = "IP:127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """A server's context with a self-signed certificate for `names`, and the file to trust."""
    file = folder / "certificate.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout - -out -".split()
    made = subprocess.run(
        [*words, "-addext", f"subjectAltName={names}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    file.write_text(made.stdout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, file
