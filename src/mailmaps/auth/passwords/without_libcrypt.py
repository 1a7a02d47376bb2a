"""crypt(3) hashes that this system's libcrypt does not know: passlib's Python code, and the package bcrypt.

passlib holds the interpreter lock and takes about twice as long; that is for systems without libxcrypt, or
with one that was built without the weak methods. Nothing here knows yescrypt, gost-yescrypt, `$7$`, `$3$`.
"""

from __future__ import annotations

import re

import bcrypt
from passlib.hash import (
    bigcrypt,
    bsdi_crypt,
    des_crypt,
    md5_crypt,
    sha1_crypt,
    sha256_crypt,
    sha512_crypt,
    sun_md5_crypt,
)

# The package refuses longer ones; libcrypt cuts them, and so their users could log in until now.
BCRYPT_BYTES = 72

# Complete hashes as crypt(5) has them: passlib takes a mere setting too, and warns where its rounds are odd.
_DIGIT = r"[./0-9A-Za-z]"
_SHAPES = (
    (sha512_crypt, rf"\$6\$(?:rounds=\d+\$)?[^$:\n]{{0,16}}\${_DIGIT}{{86}}"),
    (sha256_crypt, rf"\$5\$(?:rounds=\d+\$)?[^$:\n]{{0,16}}\${_DIGIT}{{43}}"),
    (md5_crypt, rf"\$1\$[^$:\n]{{0,8}}\${_DIGIT}{{22}}"),
    (sha1_crypt, rf"\$sha1\$\d+\${_DIGIT}{{0,64}}\${_DIGIT}{{28}}"),
    (sun_md5_crypt, rf"\$md5(?:,rounds=\d+)?\${_DIGIT}{{0,8}}\${{1,2}}{_DIGIT}{{22}}"),
    (bsdi_crypt, rf"_{_DIGIT}{{19}}"),
    (des_crypt, rf"{_DIGIT}{{13}}"),
    (bigcrypt, rf"{_DIGIT}{{24,178}}"),
)
_BCRYPT = re.compile(rf"\$2[aby]\$\d\d\${_DIGIT}{{53}}")  # the package knows no $2x$

_BY_PREFIX = {b"$6$": sha512_crypt, b"$5$": sha256_crypt, b"$1$": md5_crypt, b"": des_crypt}


def verify_without(password: bytes, stored: bytes) -> bool | None:
    """Tell whether `password` fits. None if `stored` is malformed or of a method that neither library has."""
    text = stored.decode("ascii")
    try:
        if _BCRYPT.fullmatch(text):
            return bcrypt.checkpw(password[:BCRYPT_BYTES], stored)
        for handler, shape in _SHAPES:
            if re.fullmatch(shape, text):
                return bool(handler.verify(password, text))
    except ValueError:  # both libraries' word for malformed
        return None
    return None


def make_without(prefix: bytes, password: bytes, count: int) -> bytes | None:
    """Make a new hash as crypt_gensalt(3) and crypt(3) do. None for a method that is not to be made here."""
    if prefix.startswith(b"$2"):
        setting = bcrypt.gensalt(count).replace(b"$2b$", prefix, 1)
        return bcrypt.hashpw(password, setting)
    handler = _BY_PREFIX.get(prefix)
    if handler is None:
        return None
    made: str = (handler.using(rounds=count) if count else handler).hash(password)
    return made.encode("ascii")
