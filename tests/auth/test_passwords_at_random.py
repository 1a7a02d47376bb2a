"""Whatever stands in the database: no exception but `CannotVerify`, no login, and no secret in a log."""

from __future__ import annotations

import re
from unittest import mock

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mailmaps.auth.passwords import KNOWN, SCHEMES, CannotVerify, crypt3, make, verify

# What people's rows begin with, and what is left when someone edits them by hand.
PREFIXES = st.sampled_from(
    [
        "", "{", "}", "$", "_", "!", *(f"{{{name}}}" for name in sorted(KNOWN)), "{SSHA.hex}", "{CRYPT.b64}",
        "{CRYPT}$1$", "{CRYPT}$6$", "$5$rounds=", "$2y$05$", "{CRYPT}$y$", "$7$", "$sha1$", "$md5,",
        "$argon2id$v=19$m=", "$1$a$1000$",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(), st.text(alphabet="./0123456789ABCabcxyz"), st.text("0123456789abcdef$,=", min_size=8)
)
PASSWORDS = st.binary(min_size=1, max_size=600)

MADE = [make(b"right", scheme) for scheme in SCHEMES if scheme != "ARGON2ID"]

# In no reason: six of these in a row are a piece of what was stored.
SECRETS = st.text(alphabet="QXZJ789qzxj", min_size=6, max_size=40)
FORMS = st.sampled_from(
    [
        "{}", "{{{}}}", "{{{}}}abc", "{{SSHA.{}}}abc", "{{SSHA}}{}!", "{{SHA256.hex}}{}", "{{CRYPT}}{}",
        "{{CRYPT}}$6${}", "{{CRYPT}}$y${}$", "$2y$05${}", "$6$rounds={}$salt$abc", "{{PLAIN}}{}",
        "{{MD5}}{}", "{{ARGON2ID}}$argon2id${}", "$argon2id$v=19$m=8,t=1,p=1${}$abc",
        "{{PBKDF2}}$1${}$1$abc", "{{SCRAM-SHA-1}}4096,{},a,b", "{{OTP}}sha1 1 {} zz", "{{DIGEST-MD5}}{}",
        "{{PLAIN-TRUNC}}{}", "{{LANMAN}}{}", "{{CRAM-MD5}}{}", "{{NTLM.{}}}00",
    ]
)  # fmt: skip


def outcome(password: bytes, stored: str, default_scheme: str = "CRYPT") -> bool | None:
    """What `verify` says; None for cannot say. Any other exception is the test's failure."""
    try:
        return verify(password, stored, user="jane", default_scheme=default_scheme)
    except CannotVerify:
        return None


def reason(stored: str) -> CannotVerify | None:
    """Why it cannot be said."""
    try:
        verify(b"right", stored, user="jane")
    except CannotVerify as error:
        return error
    return None


@settings(deadline=None, max_examples=400)
@given(PASSWORDS, PREFIXES, TEXTS, st.sampled_from(sorted(KNOWN)))
@example(b"right", "", "\ud800", "CRYPT")
@example(b"right", "{SCRAM-SHA-1}", "٤,,,", "CRYPT")
def test_random_text_lets_nobody_in(password: bytes, prefix: str, text: str, default_scheme: str) -> None:
    assert outcome(password, prefix + text, default_scheme) in (False, None)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(MADE), st.data())
def test_a_damaged_hash_lets_nobody_in(stored: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(stored) - 1))
    end = data.draw(st.integers(place, min(len(stored), place + 4)))
    damaged = stored[:place] + data.draw(st.text(alphabet="$./Az09,=}{ é\0", max_size=3)) + stored[end:]
    assume(damaged != stored)
    assert outcome(b"wrong", damaged) in (False, None)


@settings(deadline=None, max_examples=400)
@given(FORMS, SECRETS)
def test_no_reason_has_a_piece_of_the_hash(form: str, secret: str) -> None:
    error = reason(form.format(secret))
    pieces = {secret[start : start + 6] for start in range(len(secret) - 5)}
    assert not any(piece in repr(error) for piece in pieces)
    assert error is None or error.__context__ is None


@settings(deadline=None, max_examples=300)
@given(PREFIXES, st.text(min_size=1))
def test_reasons_are_a_few_texts(prefix: str, text: str) -> None:
    """They differ in the scheme's name and a limit only."""
    told = re.sub(r"\d+", "N", str(reason(prefix + text)))
    for name in sorted(KNOWN, key=len, reverse=True):
        told = told.removeprefix(f"{name}: ")
    assert re.fullmatch(r"[a-zA-Z0-9 ,.'()?-]+", told)


@settings(deadline=None, max_examples=100)
@given(st.binary(min_size=1, max_size=100).filter(lambda text: b"\0" not in text), PASSWORDS)
def test_only_the_password_itself_fits(password: bytes, other: bytes) -> None:
    assume(password != other)
    for scheme in ("SSHA512", "MD5-CRYPT"):
        stored = make(password, scheme)
        assert verify(password, stored)
        assert not verify(other, stored)


@settings(deadline=None, max_examples=300)
@given(PREFIXES, TEXTS)
def test_random_text_lets_nobody_in_without_libcrypt(prefix: str, text: str) -> None:
    with mock.patch.object(crypt3, "_libcrypt", return_value=None):
        assert outcome(b"right", prefix + text) in (False, None)
