"""What is never a login, what cannot be said, and the readings of a hash without prefix."""

from __future__ import annotations

import bcrypt
import pytest

from mailmaps.auth.passwords import MAX_PASSWORD, CannotVerify, is_known, is_locked, make, verify
from mailmaps.auth.passwords.crypt3 import crypt

MD5_OF_PASSWORD = "5f4dcc3b5aa765d61d8327deb882cf99"
SHA512_RIGHT = make(b"right", "SHA512-CRYPT")
BARE = SHA512_RIGHT.partition("}")[2]


@pytest.mark.parametrize(
    "stored",
    [
        "", "x", "!", "!!", "*", "*LK*", f"!{BARE}", f"!{SHA512_RIGHT}", f"{{CRYPT}}!{BARE}", "{CRYPT}*",
        "{CRYPT}x", "{CRYPT}", "{SSHA}", "{PLAIN}", "{SHA512-CRYPT}!", "{ARGON2ID}!",
    ],
)  # fmt: skip
@pytest.mark.parametrize("password", [b"right", b"x", b"!", b"*", b""])
def test_a_locked_account_or_none_at_all(stored: str, password: bytes) -> None:
    assert verify(password, stored, allow_plain=True) is False
    assert verify(password, stored, default_scheme="PLAIN", allow_plain=True) is False


@pytest.mark.parametrize("stored", [SHA512_RIGHT, "{PLAIN}", "{PLAIN}right", "{CRYPT}", "{nonsense}"])
@pytest.mark.parametrize("password", [b"", b"right\0", b"\0", b"r" * 513])
def test_no_password_to_verify(stored: str, password: bytes) -> None:
    assert verify(password, stored, allow_plain=True) is False


def test_nul_does_not_end_the_password() -> None:
    assert verify(b"right", SHA512_RIGHT)
    assert not verify(b"right\0more", SHA512_RIGHT)


@pytest.mark.parametrize(
    ("scheme", "longest"),
    [("ARGON2ID", 512), ("SSHA512", 512), ("PBKDF2", 512), ("SHA512-CRYPT", 511), ("YESCRYPT", 511)],
)
def test_the_longest_password(scheme: str, longest: int) -> None:
    assert MAX_PASSWORD == 512
    stored = make(b"a" * longest, scheme)
    assert verify(b"a" * longest, stored)
    assert not verify(b"a" * (longest - 1), stored)
    assert not verify(b"a" * (longest + 1), stored)


def test_bcrypt_reads_72_bytes_and_des_8_as_libcrypt_does() -> None:
    made = crypt(b"a" * 80, b"$2y$04$11ipvo5dR6CwkzwmhwM26O")
    assert made is not None
    for stored in (made.decode(), bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()):
        assert not verify(b"a" * 71, stored)
        assert verify(b"a" * 72, stored)
        assert verify(b"a" * 73, stored)
    stored = make(b"12345678", "DES-CRYPT")
    assert verify(b"123456789", stored)
    assert not verify(b"1234567", stored)


@pytest.mark.parametrize("password", ["pässwörd", "пароль", "パスワード", "🔑🔑"])
@pytest.mark.parametrize("scheme", ["YESCRYPT", "ARGON2ID", "SHA256-CRYPT", "BLF-CRYPT", "PBKDF2", "SSHA"])
def test_beyond_ascii(scheme: str, password: str) -> None:
    stored = make(password.encode(), scheme)
    assert verify(password.encode(), stored)
    assert not verify(password.encode("utf-16-le").replace(b"\0", b"?"), stored)


def test_latin_1_is_another_password_than_utf_8() -> None:
    stored = make("pässword".encode("latin-1"), "SSHA256")
    assert verify("pässword".encode("latin-1"), stored)
    assert not verify("pässword".encode(), stored)


@pytest.mark.parametrize(
    "stored",
    [
        "{PLAIN}right", "{plain}right", "{CLEAR}right", "{CLEARTEXT}right", "{PLAIN.b64}cmlnaHQ=",
        "{PLAIN.hex}7269676874", "{PLAIN-TRUNC}5-right", "{PLAIN-TRUNC}99-right",
    ],
)  # fmt: skip
def test_plain_text_only_where_it_is_allowed(stored: str) -> None:
    assert verify(b"right", stored, allow_plain=True)
    assert not verify(b"wrong", stored, allow_plain=True)
    with pytest.raises(CannotVerify, match="plain text are not allowed"):
        verify(b"right", stored)


def test_a_cut_plain_password_counts_as_far_as_it_goes() -> None:
    assert verify(b"right and more", "{PLAIN-TRUNC}5-right", allow_plain=True)
    assert not verify(b"righ", "{PLAIN-TRUNC}5-right", allow_plain=True)
    assert not verify(b"right and more", "{PLAIN-TRUNC}6-right", allow_plain=True)


def test_plain_text_without_prefix_only_by_default_scheme() -> None:
    for word in ("right", "{right", "a word of 26 letters! Yes!", "Sommer2024abc", "!right"[1:], "$right"):
        assert verify(word.encode(), word, default_scheme="PLAIN", allow_plain=True), word
        with pytest.raises(CannotVerify):
            verify(word.encode(), word, default_scheme="PLAIN")
    with pytest.raises(CannotVerify):
        verify(b"right", "right", allow_plain=True)


@pytest.mark.parametrize("stored", [BARE, make(b"right", "ARGON2ID").partition("}")[2]])
def test_a_hash_is_not_its_own_password(stored: str) -> None:
    assert verify(stored.encode(), stored, default_scheme="PLAIN", allow_plain=True) is False
    assert verify(b"right", stored, default_scheme="PLAIN", allow_plain=True)


def test_the_default_scheme_is_one_more_reading() -> None:
    assert verify(b"password", MD5_OF_PASSWORD)
    assert verify(b"password", MD5_OF_PASSWORD, default_scheme="NTLM")
    assert verify(b"password", "8846f7eaee8fb117ad06bdd830b7586c", default_scheme="ntlm")
    assert not verify(b"password", "8846f7eaee8fb117ad06bdd830b7586c")


def test_digits_that_are_both_hexadecimal_and_base64() -> None:
    """40 hexadecimal digits are 30 bytes in base64: SSHA with 10 of salt, or SMD5 with 14."""
    assert verify(b"password", "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8", default_scheme="SSHA")
    assert not verify(b"Password", "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8", default_scheme="SSHA")


def test_argon2_within_crypt() -> None:
    assert verify(b"right", "{CRYPT}" + make(b"right", "ARGON2ID").partition("}")[2])


MALFORMED = [
    "{secret}abc", "{}abc", "{SSHA.bin}abcd", "{SSHA.}abcd", "{SHA 1}abcd", "{PLAIN-MD6}abcd", "{CRYPT}a",
    "{CRYPT}hello world", "{CRYPT}$6$", "{CRYPT}$6$salt", "{CRYPT}$6$salt$tooshort", "{CRYPT}" + BARE[:-1],
    "{CRYPT}" + BARE + "a", "{CRYPT}" + BARE[:32], "{CRYPT}$9$salt$abc", "{CRYPT}$2y$05$short",
    "{CRYPT}$2y$05$" + "!" * 53, "{CRYPT}$y$j9T$", "{CRYPT}$y$$", "{CRYPT}$7$", "{CRYPT}ab\n", "{CRYPT}abé",
    "{CRYPT}$6$salt\0$abc", "{CRYPT}_J9..CCC", "{MD5-CRYPT}nothing", "{MD5}zz",
    "{MD5}" + MD5_OF_PASSWORD[:-1], "{ARGON2ID}a", "{ARGON2ID}$argon2id$",
    "{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$a$b", "{ARGON2ID}$argon2id$v=19$m=x,t=1,p=1$YWJjZGVmZ2g$YWJj",
    "{ARGON2ID}$argon2id$v=19$m=-8,t=1,p=1$YWJjZGVmZ2g$YWJj", "{ARGON2ID}" + BARE, "{ARGON2ID}$argon2idé",
    "{SHA}a", "{SHA}YWJj", "{SHA}" + "z" * 40, "{SHA256.hex}zz", "{SSHA}YWJj",
    "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "{SSHA256}not base64!", "{PLAIN-MD5}abcé",
    "{LDAP-MD5}X03MO1qnZdYdgyfe", "{NTLM}00", "{LANMAN}00", "{CRAM-MD5}00", "{DIGEST-MD5}00", "{PBKDF2}a",
    "{PBKDF2}$1$salt$x$00", "{PBKDF2}$1$salt$0$" + "0" * 40, "{PBKDF2}$1$salt$10$00",
    "{SCRAM-SHA-1}a", "{SCRAM-SHA-1}a,b,c,d", "{SCRAM-SHA-1}4096,YWJj,YWJj,YWJj",
    "{SCRAM-SHA-1}0,YWJj,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=", "{OTP}a",
    "{OTP}sha1 1 seed zz", "{OTP}sha2 1 seed 0000000000000000", "{PLAIN-TRUNC}abc", "hello world", "hello",
    "password!", "$ecret", "{broken", MD5_OF_PASSWORD[:-1], "no such 13 ch", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("stored", MALFORMED)
def test_malformed_is_not_wrong(stored: str) -> None:
    with pytest.raises(CannotVerify) as caught:
        verify(b"right", stored, user="user", allow_plain=True)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("default_scheme", ["", "NOTHING", "SSHA.bin"])
def test_an_unknown_default_scheme(default_scheme: str) -> None:
    assert not is_known(default_scheme)
    with pytest.raises(CannotVerify):
        verify(b"right", "right", default_scheme=default_scheme)
    assert verify(b"right", SHA512_RIGHT, default_scheme=default_scheme)


def test_names_of_schemes() -> None:
    assert all(is_known(name) for name in ("CRYPT", "ssha256.hex", "Ssha.B64", "DIGEST-MD5", "md5.base64"))
    assert not any(is_known(name) for name in ("YESCRYPT", "{CRYPT}", "SHA.1", "CRYPT "))


def test_a_reason_names_known_schemes_only() -> None:
    with pytest.raises(CannotVerify) as caught:
        verify(b"right", "{hunter2}")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(CannotVerify, match="PLAIN-TRUNC"):
        verify(b"right", "{plain-trunc}right")


@pytest.mark.parametrize(
    ("stored", "locked"),
    [
        ("", True),
        ("x", True),
        ("!", True),
        ("*", True),
        ("!$6$salt$hash", True),
        ("{CRYPT}*", True),
        ("{SSHA}!", True),
        ("{PLAIN}!", False),
        ("{NO-SUCH-SCHEME}x", False),
        ("$6$salt$hash", False),
        ("secret", False),
    ],
)
def test_what_is_locked(stored: str, locked: bool) -> None:
    assert is_locked(stored) == locked
    if locked:
        assert not verify(b"x", stored, allow_plain=True)
