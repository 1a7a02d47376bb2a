"""crypt(3): the system's libcrypt through ctypes.

ctypes releases the interpreter lock during the call; crypt.crypt (gone in Python 3.13) and its successors on
PyPI do not. crypt_ra(3) is reentrant and allocates its own 32 KiB, which the caller frees. Only libxcrypt has
it: .so.2 on Fedora and Arch, .so.1 on Debian and where the old name is kept.

What a libcrypt lacks (hashes are chosen when it is built; musl has none of this) is done by
`mailmaps.auth.passwords.without_libcrypt`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hmac
import re
from collections.abc import Iterator

from mailmaps.auth.passwords.argon import verify_argon2
from mailmaps.auth.passwords.costs import check_crypt
from mailmaps.auth.passwords.errors import CannotVerify
from mailmaps.auth.passwords.without_libcrypt import verify_without

# CRYPT_MAX_PASSPHRASE_SIZE of <crypt.h> is 512 with the NUL at the end.
MAX_CRYPT_PASSWORD = 511

# Hashes that do not begin with `$` (crypt(5)): DES, bigcrypt (11 characters for 8 of the password), BSDi.
_NO_DOLLAR = re.compile(rb"[./0-9A-Za-z]{13}(?:[./0-9A-Za-z]{11}){0,15}|_[./0-9A-Za-z]{19}")

# $1$salt$hash$ and something more, which Dovecot's password_get_scheme() cuts off.
_MD5_CRYPT = re.compile(rb"(\$1\$[^$]*\$[^$]+)\$")


class _Libcrypt:
    """The functions of one loaded library; AttributeError if it is not libxcrypt."""

    def __init__(self, name: str) -> None:
        library = ctypes.CDLL(name)
        self.crypt_ra = library.crypt_ra
        self.crypt_ra.restype = ctypes.c_char_p  # points into data: Python copies it before data is freed
        self.crypt_ra.argtypes = (
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.POINTER(ctypes.c_int),
        )
        self.crypt_gensalt_ra = library.crypt_gensalt_ra
        self.crypt_gensalt_ra.restype = ctypes.c_void_p
        self.crypt_gensalt_ra.argtypes = (ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int)
        self.free = ctypes.CDLL(None).free  # the C library's, which both of them allocate with
        self.free.restype = None
        self.free.argtypes = (ctypes.c_void_p,)


@functools.cache
def _libcrypt() -> _Libcrypt | None:
    for name in _names():
        try:
            return _Libcrypt(name)
        except (OSError, AttributeError):  # not there, or an old glibc's
            continue
    return None


def _names() -> Iterator[str]:
    yield "libcrypt.so.2"
    yield "libcrypt.so.1"
    found = ctypes.util.find_library("crypt")  # starts ldconfig and gcc, therefore last
    if found is not None:
        yield found


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """Hash with crypt(3). None if libcrypt does not take the setting, or has not enough memory."""
    library = _libcrypt()
    if library is None:
        return None
    data, size = ctypes.c_void_p(), ctypes.c_int()
    try:
        result: bytes | None = library.crypt_ra(password, setting, data, size)
    finally:
        library.free(data)
    return None if result is None or result.startswith(b"*") else result


def gensalt(prefix: bytes, count: int = 0) -> bytes | None:
    """Make a new setting with the system's random bytes. None if libcrypt has no such method.

    `count` is the method's cost as crypt(5) gives it, 0 for its default.
    """
    library = _libcrypt()
    if library is None:
        return None
    setting = library.crypt_gensalt_ra(prefix, count, None, 0)
    try:
        return None if setting is None else ctypes.string_at(setting)
    finally:
        library.free(setting)


def verify_crypt(password: bytes, stored: bytes) -> bool:
    """Tell whether `password` fits a hash of any method of crypt(3).

    argon2 counts as one, though Dovecot refuses {CRYPT}$argon2: there is no doubt what it is.
    Raises `CannotVerify` for what is no such hash, is cut short, or costs too much.
    """
    if stored.startswith(b"$argon2"):
        return verify_argon2(password, stored)
    if found := _MD5_CRYPT.match(stored):
        stored = found[1]
    if (
        b"\0" in stored
        or not stored.isascii()
        or not (stored.startswith(b"$") or _NO_DOLLAR.fullmatch(stored))
    ):
        raise CannotVerify("the value is not a crypt(3) hash")
    check_crypt(stored)
    if len(password) > MAX_CRYPT_PASSWORD:
        return False
    result = crypt(password, stored)
    if result is None:
        return _verify_without(password, stored)
    if len(result) != len(stored):
        raise CannotVerify("the crypt(3) hash has not the length of its method (cut by a short column?)")
    return hmac.compare_digest(result, stored)


def _verify_without(password: bytes, stored: bytes) -> bool:
    fits = verify_without(password, stored)
    if fits is None:
        raise CannotVerify(
            "the crypt(3) hash is malformed, or of a method this system's libcrypt does not have"
        )
    return fits
