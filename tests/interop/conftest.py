"""The real command, `vivavoce serve --model scripted`, in a process of its own for as long as these tests run.

One model of it is slow: its voice takes an hour for its second piece, so that an answer is still being spoken whenever
a test wants to stop it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from conversations import SLOW_MODEL
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 15

CONFIG = f"""
[models]
"{SLOW_MODEL}" = "slow"

[pipelines.slow]
vad = {{ engine = "scripted" }}
transcriber = {{ engine = "scripted" }}
language_model = {{ engine = "scripted" }}
synthesizer = {{ engine = "scripted", options = {{ piece_delay_s = 3600 }} }}
turn_detector = {{ engine = "scripted" }}
noise_reducer = {{ engine = "scripted" }}
"""

_URL = re.compile(r"ws://127\.0\.0\.1:\d+")


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`ws://127.0.0.1:PORT` of a server with the scripted pipeline."""
    config = tmp_path_factory.mktemp("interop") / "vivavoce.toml"
    config.write_text(CONFIG, "utf-8")
    with running_command("serve", "--model", "scripted", "--port", "0", "--config", str(config)) as url:
        yield url


@contextmanager
def running_command(*arguments: str) -> Iterator[str]:
    """The address that `vivavoce ARGUMENTS…` says, which runs until the block ends, and ends well."""
    command = [sys.executable, "-m", "vivavoce", *arguments]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        alarm = threading.Timer(START_SECONDS_MAX, process.kill)
        alarm.start()
        said: list[str] = []
        try:
            url = _url_in(process, said)
            alarm.cancel()
            drain = threading.Thread(target=_keep_reading, args=(process, said), daemon=True)
            drain.start()
            yield url
            process.terminate()
            code = process.wait(STOP_SECONDS_MAX)
            drain.join(STOP_SECONDS_MAX)
            assert code in (0, -15), f"the server ended with {code}:\n{''.join(said)}"
            assert "Traceback" not in "".join(said), "".join(said)
        finally:
            alarm.cancel()
            process.kill()


def _url_in(process: subprocess.Popen[str], said: list[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := _URL.search(line):
            return found[0]
    raise RuntimeError(f"the server ended, or said no address for {START_SECONDS_MAX} s:\n{''.join(said)}")


def _keep_reading(process: subprocess.Popen[str], said: list[str]) -> None:
    """A server whose output nobody reads would stop at a full pipe."""
    assert process.stdout is not None
    said.extend(process.stdout)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a key and a certificate that it signed itself, for 127.0.0.1 and one day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vivavoce interop")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem))
    return str(file)
