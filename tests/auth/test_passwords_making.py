"""New hashes: what they look like, and what is refused."""

from __future__ import annotations

import re

import pytest

from mailmaps.auth.passwords import SCHEMES, crypt3, default_scheme, make, making, verify

FORMS = {
    "YESCRYPT": r"\{CRYPT\}\$y\$j9T\$[./0-9A-Za-z]{22}\$[./0-9A-Za-z]{43}",
    "ARGON2ID": r"\{ARGON2ID\}\$argon2id\$v=19\$m=65536,t=3,p=1\$[^$]{22}\$[^$]{43}",
    "BLF-CRYPT": r"\{BLF-CRYPT\}\$2y\$11\$[./0-9A-Za-z]{53}",
    "SHA512-CRYPT": r"\{SHA512-CRYPT\}\$6\$rounds=100000\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}",
    "SHA256-CRYPT": r"\{SHA256-CRYPT\}\$5\$rounds=100000\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{43}",
    "PBKDF2": r"\{PBKDF2\}\$1\$[0-9a-f]{16}\$500000\$[0-9a-f]{40}",
    "SSHA512": r"\{SSHA512\}[A-Za-z0-9+/]{96}",
    "SSHA256": r"\{SSHA256\}[A-Za-z0-9+/]{54}==",
    "SSHA": r"\{SSHA\}[A-Za-z0-9+/]{38}==",
    "MD5-CRYPT": r"\{MD5-CRYPT\}\$1\$[./0-9A-Za-z]{8}\$[./0-9A-Za-z]{22}",
    "DES-CRYPT": r"\{DES-CRYPT\}[./0-9A-Za-z]{13}",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_made_and_verified(scheme: str) -> None:
    stored = make(b"right", scheme)
    assert re.fullmatch(FORMS[scheme], stored)
    assert make(b"right", scheme.lower()) != stored
    for text in (stored, stored.partition("}")[2]):
        assert verify(b"right", text)
        assert not verify(b"wrong", text)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="is empty"):
        make(b"", scheme)
    with pytest.raises(ValueError, match="NUL"):
        make(b"sec\0ret", scheme)
    with pytest.raises(ValueError, match=rf"longer than the \d+ bytes that {scheme} reads"):
        make(b"s" * 513, scheme)


@pytest.mark.parametrize(("scheme", "longest"), [("BLF-CRYPT", 72), ("DES-CRYPT", 8), ("MD5-CRYPT", 511)])
def test_the_longest(scheme: str, longest: int) -> None:
    assert verify(b"s" * longest, make(b"s" * longest, scheme))
    with pytest.raises(ValueError, match=f"the {longest} bytes"):
        make(b"s" * (longest + 1), scheme)


@pytest.mark.parametrize("scheme", ["", "CRYPT", "PLAIN", "MD5", "nonsense"])
def test_not_offered(scheme: str) -> None:
    with pytest.raises(ValueError, match="must be one of YESCRYPT, ARGON2ID, "):
        make(b"right", scheme)


def test_without_libcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, str] = {}
    with monkeypatch.context() as patch:
        patch.setattr(crypt3, "_libcrypt", lambda: None)
        assert making.default_scheme.__wrapped__() == "ARGON2ID"
        for scheme in SCHEMES[1:]:
            made[scheme] = make(b"right", scheme)
        with pytest.raises(ValueError, match="libcrypt"):
            make(b"right", "YESCRYPT")
    for scheme, stored in made.items():
        assert re.fullmatch(FORMS[scheme], stored), scheme
        assert verify(b"right", stored)
        assert not verify(b"wrong", stored)


def test_the_default_is_what_libcrypt_prefers() -> None:
    assert default_scheme() == "YESCRYPT"
