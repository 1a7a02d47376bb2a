"""What a stored hash may cost: a verification cannot be cancelled once it runs.

The costs stand in the hash, so whoever can write a row (an import, a careless panel) decides how long a core
and how much memory each try of that account takes. Hashes that anybody made on purpose stay far below these
limits; above them the answer is `CannotVerify`, not a core that is busy for hours. The times are of one core
of 2020's servers.
"""

from __future__ import annotations

import re

from mailmaps.auth.passwords.errors import CannotVerify

# 2 to 11 s: one round takes 0.17 us (PBKDF2, SCRAM), 0.19 (SHA512-CRYPT), 0.46 (sha1crypt), 1.1 us (SunMD5).
# crypt(5) has 5000 rounds by default, and would take 999,999,999.
MAX_ROUNDS = 10_000_000

# bcrypt takes 2^cost steps; 12 is 0.2 s, so 17 is 0.2 s * 2^5 = 6.6 s and crypt(5)'s 31 is 30 hours.
MAX_BCRYPT_COST = 17

# Memory of one verification: 1 GiB, which is libsodium's highest setting (argon2id SENSITIVE) and the highest
# that crypt_gensalt(3) gives for yescrypt and scrypt (count 11).
MAX_MEMORY = 1 << 30

# Bytes that argon2, scrypt and yescrypt write in all, memory * passes: about 1 GiB/s, so 8 s.
MAX_WRITTEN = 8 << 30

# Shifting by more than this is absurd already, and Python would really make the number.
_TOO_MUCH = 64

# argon2 starts a thread for each lane.
MAX_LANES = 64

# RFC 2289 shows sequence numbers to 9999; Dovecot makes 1024.
MAX_OTP_SEQUENCE = 9999

_ITOA64 = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_ROUNDS = re.compile(rb"\$[56]\$rounds=(\d+)\$|\$sha1\$(\d+)\$|\$md5[,$]rounds=(\d+)\$")
_BCRYPT = re.compile(rb"\$2[abxy]\$(\d\d)\$")
_SCRYPT = re.compile(rb"\$7\$([./0-9A-Za-z])([./0-9A-Za-z]{5})([./0-9A-Za-z]{5})")
_YESCRYPT = re.compile(rb"\$g?y\$([./0-9A-Za-z]+)\$")

# yescrypt's `have` bits: parallelism, time, upgrades, ROM (yescrypt-common.c, yescrypt_r).
_HAVE_P, _HAVE_T = 1, 2


def check_rounds(rounds: int) -> None:
    """Raise `CannotVerify` for more than `MAX_ROUNDS`."""
    if rounds > MAX_ROUNDS:
        raise CannotVerify(f"the hash asks for more than {MAX_ROUNDS} rounds")


def check_memory(memory: int, passes: int) -> None:
    """Raise `CannotVerify` for more than `MAX_MEMORY` bytes, or too many passes over them."""
    if memory > MAX_MEMORY:
        raise CannotVerify(f"the hash asks for more than {MAX_MEMORY >> 20} MiB of memory")
    if memory * passes > MAX_WRITTEN:
        raise CannotVerify(f"the hash asks for more work than {MAX_WRITTEN >> 30} GiB of memory written")


def check_crypt(stored: bytes) -> None:
    """Raise `CannotVerify` if the cost of a crypt(3) hash is absurd; what cannot be read is libcrypt's."""
    if found := _ROUNDS.match(stored):
        check_rounds(int(next(filter(None, found.groups()))[:20]))  # 20 digits are absurd already
    elif found := _BCRYPT.match(stored):
        if int(found[1]) > MAX_BCRYPT_COST:
            raise CannotVerify(f"the bcrypt cost is above {MAX_BCRYPT_COST}")
    elif found := _SCRYPT.match(stored):
        log_n, r, p = (_little_endian(found[number]) for number in (1, 2, 3))
        _check_scrypt(log_n, r, p)
    elif found := _YESCRYPT.match(stored):
        _check_yescrypt(found[1])


def _check_scrypt(log_n: int, r: int, passes: int) -> None:
    check_memory(128 * r << min(log_n, _TOO_MUCH), passes)


def _check_yescrypt(parameters: bytes) -> None:
    """Read flavour, log2 N, r and, if there, p and t, as yescrypt_r() does."""
    digits = [_ITOA64.index(digit) for digit in reversed(parameters)]
    try:
        _number(digits, 0)
        log_n, r = _number(digits, 1), _number(digits, 1)
        have = _number(digits, 1) if digits else 0
        p = _number(digits, 2) if have & _HAVE_P else 1
        t = _number(digits, 1) if have & _HAVE_T else 0
    except IndexError:
        raise CannotVerify("the yescrypt parameters are malformed") from None
    _check_scrypt(log_n, r, p * (t + 1))


def _number(digits: list[int], least: int) -> int:
    """Take one of yescrypt's numbers of variable length off the end of `digits` (decode64_uint32)."""
    value, start, last, more = least, 0, 47, 0
    digit = digits.pop()
    while digit > last:
        value += (last + 1 - start) << (6 * more)
        start, last, more = last + 1, last + 1 + (62 - last) // 2, more + 1
    value += (digit - start) << (6 * more)
    for shift in range(more - 1, -1, -1):
        value += digits.pop() << (6 * shift)
    return value


def _little_endian(digits: bytes) -> int:
    return sum(_ITOA64.index(digit) << (6 * place) for place, digit in enumerate(digits))
