"""Dovecot's doveadm makes a hash and we verify it, and the other way round."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.dovecot import installed_version

from mailmaps.auth.passwords import SCHEMES, CannotVerify, is_known, make, verify

pytestmark = pytest.mark.postfix

USER = "jane@example.org"
PASSWORDS = ["pässwörd 123", "a", "12345678", "p" * 72, "long " * 30]

# Whose shape does not say what it is.
NEEDS_PREFIX = {"PLAIN", "CLEAR", "CLEARTEXT", "DIGEST-MD5"}

# Makes a hash that its own verification refuses ("missing length: prefix").
MAKES_NONSENSE = {"PLAIN-TRUNC"}


@pytest.fixture(scope="module")
def config() -> Iterator[Path]:
    """A configuration that has nothing to do with /etc/dovecot."""
    folder = Path(tempfile.mkdtemp(prefix="mailmaps-doveadm-"))
    file = folder / "dovecot.conf"
    versions = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
    first = "" if installed_version().startswith("2.3") else versions
    file.write_text(
        f"{first}base_dir = {folder}/run\nstate_dir = {folder}/state\nlog_path = /dev/stderr\nssl = no\n"
    )
    yield file
    shutil.rmtree(folder)


def doveadm(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`doveadm pw`, with the user that DIGEST-MD5 wants."""
    return subprocess.run(
        ["doveadm", "-c", str(config), "pw", "-u", USER, *words], capture_output=True, text=True, timeout=60
    )


def schemes(config: Path) -> list[str]:
    """What this Dovecot offers."""
    return doveadm(config, "-l").stdout.split()


def same(scheme: str, left: str, right: str) -> bool:
    """Tell whether the scheme cannot keep two passwords apart."""
    limit = {"DES-CRYPT": 8, "BLF-CRYPT": 72, "CRYPT": 72}.get(scheme, 512)
    return left.encode()[:limit] == right.encode()[:limit]


def test_what_doveadm_makes_is_verified(config: Path) -> None:
    listed = schemes(config)
    assert len(listed) > 25, listed
    assert [name for name in listed if not is_known(name)] == []
    for scheme in sorted(set(listed) - MAKES_NONSENSE):
        for password in PASSWORDS:
            stored = doveadm(config, "-s", scheme, "-p", password).stdout.rstrip("\n")
            assert stored.startswith(f"{{{scheme}}}"), scheme
            _accepted(scheme, password, stored, allow_plain=True)
            if scheme not in NEEDS_PREFIX:
                _accepted(scheme, password, stored.partition("}")[2], allow_plain=False)
            _accepted(scheme, password, stored.partition("}")[2], allow_plain=True, default_scheme=scheme)


def _accepted(
    scheme: str, password: str, stored: str, *, allow_plain: bool, default_scheme: str = "CRYPT"
) -> None:
    for given in (password, password + "x", "x" + password):
        fits = verify(
            given.encode(), stored, user=USER, allow_plain=allow_plain, default_scheme=default_scheme
        )
        assert fits == same(scheme, given, password), (scheme, given, stored)


@pytest.mark.parametrize("encoding", ["hex", "b64", "base64"])
def test_what_doveadm_encodes_otherwise_is_verified(config: Path, encoding: str) -> None:
    for scheme in sorted(set(schemes(config)) - MAKES_NONSENSE):
        stored = doveadm(config, "-s", f"{scheme}.{encoding}", "-p", "right").stdout.rstrip("\n")
        assert stored.startswith(f"{{{scheme}.{encoding.upper()}}}"), scheme
        assert verify(b"right", stored, user=USER, allow_plain=True), stored
        assert not verify(b"wrong", stored, user=USER, allow_plain=True), stored


def test_plain_trunc_needs_its_length(config: Path) -> None:
    stored = doveadm(config, "-s", "PLAIN-TRUNC", "-p", "right").stdout.rstrip("\n")
    with pytest.raises(CannotVerify, match="length is missing"):
        verify(b"right", stored, allow_plain=True)
    assert doveadm(config, "-t", stored, "-p", "right").returncode != 0
    for given in ("right", "right and more", "wrong"):
        by_dovecot = doveadm(config, "-t", "{PLAIN-TRUNC}5-right", "-p", given).returncode == 0
        assert verify(given.encode(), "{PLAIN-TRUNC}5-right", allow_plain=True) == by_dovecot


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_we_make_is_verified_by_dovecot(config: Path, scheme: str) -> None:
    password = "päss 12"
    stored = make(password.encode(), scheme)
    right = doveadm(config, "-t", stored, "-p", password)
    assert right.returncode == 0, right.stderr
    assert right.stdout.rstrip("\n").endswith("(verified)")
    assert doveadm(config, "-t", stored, "-p", "x" + password).returncode != 0
