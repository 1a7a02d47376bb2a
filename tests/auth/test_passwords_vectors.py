"""Hashes that others published or made: RFCs, Dovecot's and passlib's tests, Perl's crypt."""

from __future__ import annotations

import base64
import hashlib

import pytest
from passlib.crypto.digest import lookup_hash
from passlib.hash import bigcrypt

from mailmaps.auth.passwords import KNOWN, CannotVerify, crypt3, verify

# src/lib-auth/test-password-scheme.c of Dovecot, all of "test", the user being testuser1.
DOVECOT = """
{CRYPT}//EsnG9FLTKjo
{PLAIN-MD4}db346d691d7acc4dc2625db19f9e3f52
{MD5}$1$wmyrgRuV$kImF6.9MAFQNHe23kq5vI/
{SHA1}qUqP5cyxm6YcTAhz05Hph5gvu9M=
{SMD5}JTu1KRwptKZJg/RLd+6Vn5GUd0M=
{LDAP-MD5}CY9rzUYh03PK3k6DJie09g==
{SHA256}n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=
{SHA512}7iaw3Ur350mqGo7jwQrpkj9hiYB3Lkc/iBml1JQODbJ6wYX4oOHV+E+IvIh/1nsUNzLDBMxfqa2Ob1f1ACio/w==
{SSHA}H/zrDv8FXUu1JmwvVYijfrYEF34jVZcO
{MD5-CRYPT}$1$GgvxyNz8$OjZhLh4P.gF1lxYEbLZ3e/
{PBKDF2}$1$bUnT4Pl7yFtYX0KU$5000$50a83cafdc517b9f46519415e53c6a858908680a
{CRAM-MD5}e02d374fde0dc75a17a557039a3a5338c7743304777dccd376f332bee68d2cf6
{SCRAM-SHA-1}4096,GetyLXdBuHzf1FWf8SLz2Q==,NA/OqmF4hhrsrB9KR7po+dliTGM=,QBiURvQaE6H6qYTmeghDHLANBFQ=
{SCRAM-SHA-256}4096,LfNGSFqiFykEZ1xDAYlnKQ==,HACNf9CII7cMz3XjRy/Oh3Ae2LHApoDyNw74d3YtFws=,\
AQH0j7Hf8J12g8eNBadvzlNB2am3PxgNwFCFd3RxEaw=
{BLF-CRYPT}$2y$05$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW
{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$f2iuP4aUeNMrgu34fhOkkg$1XSZZMWlIs0zmE+snlUIcLADO3GXbA2O/hsQmmc317k
{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$vBb99oJ12p3WAdYlaMHz1A$jtFOtbo/sYV9OSlTxDo/nVNq3uArHd5GJSEx0ty85Cc
""".split()

PUBLISHED = [
    # Dovecot's password-scheme-crypt.c, sample[]
    ("08/15!test~4711", "JBOZ0DgmtucwE"),
    ("08/15!test~4711", "$5$rounds=1000$0123456789abcdef$K/DksR0DT01hGc8g/kt9McEgrbFMKi9qrb1jehe7hn4"),
    (
        "08/15!test~4711",
        "$6$rounds=1000$0123456789abcdef$ZIAd5WqfyLkpvsVCVUU1GrvqaZTq"
        "vhJoouxdSqJO71l9Ld3tVrfOatEjarhghvEYADkq//LpDnTeO90tcbtHR1",
    ),
    # Openwall's and passlib's tests
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U*U*U*", "_J9..CCCCXBrJUJV154M"),
    ("0123456789ABCDE", "$1$12345678$aIccj83HRDBo6ux1bVx7D1"),
    ("0123456789ABCDE", "$1$12345678$aIccj83HRDBo6ux1bVx7D1$and what follows"),
    ("passwd", "$md5$RPgLF6IJ$WTvAlUJ7MqH5xak2FMEwS/"),
    ("pleaseletmein", "$7$C6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D"),
    ("password", "$3$$8846f7eaee8fb117ad06bdd830b7586c"),
    ("password", "{NTLM}8846f7eaee8fb117ad06bdd830b7586c"),
    ("password", "{LANMAN}E52CAC67419A9A224A3B108F3FA6CB6D"),
    # perl -e 'print crypt("pencil", ..)'
    ("pencil", "$y$j9T$mailmaps$ADo/aA3f4UFMOW//cilTZJvE94ngpRjlLicH5DRjqo."),
    ("pencil", "$gy$j9T$mailmaps$Sa5Cqpvx4N7QOm2GPJTGQlJ2zJBpSxws5Xr/ZktpCi5"),
    ("pencil", "$sha1$1000$mailmaps$aD.TkyYKn9NUhBe3H.SDBjTvw3Mf"),
    # RFC 6070
    ("password", "$1$salt$4096$4b007901b765489abead49d926f721d065a429c1"),
    # RFC 5802, and the same by a password that SASLprep (RFC 4013) changes
    ("pencil", "4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE="),
    ("pen\u00adcil", "4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE="),
    # RFC 2289, appendix C
    ("This is a test.", "md4 99 TeSt C5E612776E6C237A"),
    ("This is a test.", "md5 99 test 50fe1962c4965880"),
    ("This is a test.", "sha1 99 test 87FEC7768B73CCF9"),
    # echo -n password | md5sum and its like
    ("password", "5f4dcc3b5aa765d61d8327deb882cf99"),
    ("password", "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8"),
    ("password", "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"),
    ("password", "X03MO1qnZdYdgyfeuILPmQ=="),
    ("password", "W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
    ("password", "{MD5}X03MO1qnZdYdgyfeuILPmQ=="),
    ("password", "{MD5}5f4dcc3b5aa765d61d8327deb882cf99"),
    ("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g"),
]


@pytest.mark.parametrize("stored", DOVECOT)
def test_dovecots_own(stored: str) -> None:
    assert verify(b"test", stored)
    assert not verify(b"Test", stored)
    prefix, _, bare = stored.partition("}")
    assert verify(b"test", f"{prefix.lower()}}}{bare}")
    assert verify(b"test", bare)
    assert not verify(b"Test", bare)


@pytest.mark.parametrize(("password", "stored"), PUBLISHED)
def test_published(password: str, stored: str) -> None:
    assert verify(password.encode(), stored)
    assert not verify(b"a" + password.encode(), stored)


def test_digest_md5_takes_the_user() -> None:
    stored = "{DIGEST-MD5}77c1a8c437c9b08ba2f460fe5d58db5d"
    assert verify(b"test", stored, user="testuser1")
    assert not verify(b"test", stored, user="testuser2")
    assert verify(b"test", stored.partition("}")[2], user="testuser1", default_scheme="DIGEST-MD5")
    with pytest.raises(CannotVerify, match="needs the user"):
        verify(b"test", stored)


def test_the_last_at_sign_begins_the_realm() -> None:
    """RFC 2831's example: user chris, realm elwood.innosoft.com, password secret."""
    stored = "{DIGEST-MD5}eb5a750053e4d2c34aa84bbc9b0b6ee7"
    assert verify(b"secret", stored, user="chris@elwood.innosoft.com")
    assert not verify(b"secret", stored, user="chris")
    made = hashlib.md5(b"chris@elwood:innosoft.com:secret", usedforsecurity=False).hexdigest()
    assert verify(b"secret", f"{{DIGEST-MD5}}{made}", user="chris@elwood@innosoft.com")


def test_bigcrypt() -> None:
    stored = bigcrypt.using(salt="qi").hash("passphrase that is long")
    assert verify(b"passphrase that is long", "{CRYPT}" + stored)
    assert not verify(b"passphrase that is short", "{CRYPT}" + stored)


@pytest.mark.parametrize("name", ["NTLM", "{NTLM}"])
def test_ntlm_beyond_ascii_in_either_reading(name: str) -> None:
    text = "pässword"
    for encoded in (text.encode("utf-16-le"), text.encode().decode("latin-1").encode("utf-16-le")):
        stored = _md4(encoded)
        prefix = name if name.startswith("{") else ""
        assert verify(text.encode(), prefix + stored, default_scheme="NTLM")
        assert not verify(b"password", prefix + stored, default_scheme="NTLM")


def _md4(data: bytes) -> str:
    digest: str = lookup_hash("md4").const(data).hexdigest()
    return digest


@pytest.mark.parametrize("stored", [hash_ for hash_ in DOVECOT if "$" not in hash_ and "," not in hash_])
def test_either_encoding_by_suffix(stored: str) -> None:
    prefix, _, text = stored.removeprefix("{").partition("}")
    if prefix == "CRYPT":
        raw = text.encode()
    elif set(text.lower()) <= set("0123456789abcdef"):
        raw = bytes.fromhex(text)
    else:
        raw = base64.b64decode(text)
    for written in (
        f"{{{prefix}.hex}}{raw.hex()}",
        f"{{{prefix}.HEX}}{raw.hex().upper()}",
        f"{{{prefix}.b64}}{base64.b64encode(raw).decode()}",
        f"{{{prefix.lower()}.base64}}{base64.b64encode(raw).decode()}",
    ):
        assert verify(b"test", written), written
        assert not verify(b"Test", written), written


def test_every_known_scheme_has_a_vector() -> None:
    tested = {stored[1:].partition("}")[0] for stored in (*DOVECOT, *(pair[1] for pair in PUBLISHED))}
    by_shape = {"SHA512-CRYPT", "SHA256-CRYPT", "DES-CRYPT", "PLAIN-MD5", "OTP"}
    elsewhere = {"DIGEST-MD5", "HMAC-MD5", "SSHA256", "SSHA512", "ARGON2"}  # with doveadm's, and here
    plain = {"PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC"}
    assert KNOWN - tested == by_shape | elsewhere | plain


# What libcrypt may lack: by passlib and the package bcrypt it is the same.
WITHOUT = [
    *(pair for pair in PUBLISHED if pair[1][:3] in ("JBO", "$5$", "$6$", "$2a", "_J9", "$1$", "$md", "$sh")),
    ("test", "{BLF-CRYPT}$2y$05$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW"),
]


@pytest.mark.parametrize(("password", "stored"), WITHOUT)
def test_without_libcrypt(monkeypatch: pytest.MonkeyPatch, password: str, stored: str) -> None:
    monkeypatch.setattr(crypt3, "_libcrypt", lambda: None)
    assert verify(password.encode(), stored)
    assert not verify(b"a" + password.encode(), stored)


def test_the_package_bcrypt_reads_72_bytes_as_libcrypt_does(monkeypatch: pytest.MonkeyPatch) -> None:
    made = crypt3.crypt(b"a" * 72, b"$2y$04$11ipvo5dR6CwkzwmhwM26O")
    assert made is not None
    monkeypatch.setattr(crypt3, "_libcrypt", lambda: None)
    assert not verify(b"a" * 71, made.decode())
    assert verify(b"a" * 73, made.decode())


@pytest.mark.parametrize("stored", [stored for _, stored in WITHOUT if "and what follows" not in stored])
@pytest.mark.parametrize("there", [True, False])
def test_a_cut_hash_is_not_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch, stored: str, there: bool
) -> None:
    if not there:
        monkeypatch.setattr(crypt3, "_libcrypt", lambda: None)
    with pytest.raises(CannotVerify):
        verify(b"password", "{CRYPT}" + stored.rpartition("}")[2][:-1])


@pytest.mark.parametrize(
    "stored", ["$5$rounds=0$", "$5$rounds=0$salt", "$6$rounds=10$salt$", "$sha1$0$a$", "_....CCCC"]
)
@pytest.mark.parametrize("there", [True, False])
def test_a_setting_is_no_hash(monkeypatch: pytest.MonkeyPatch, stored: str, there: bool) -> None:
    """passlib would take it for one, with a warning."""
    if not there:
        monkeypatch.setattr(crypt3, "_libcrypt", lambda: None)
    with pytest.raises(CannotVerify):
        verify(b"password", "{CRYPT}" + stored)


@pytest.mark.parametrize("stored", ["$y$j9T$mailmaps$ADo", "$3$$8846f7eaee8fb117ad06bdd830b7586c"])
def test_what_only_libcrypt_knows(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    monkeypatch.setattr(crypt3, "_libcrypt", lambda: None)
    with pytest.raises(CannotVerify, match="libcrypt does not have"):
        verify(b"password", stored)
