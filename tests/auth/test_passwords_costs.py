"""A stored hash that would take a core for hours, or the machine's memory, is refused at once."""

from __future__ import annotations

import tracemalloc

import pytest

from mailmaps.auth.passwords import CannotVerify, costs, verify
from mailmaps.auth.passwords.crypt3 import crypt, gensalt

DIGEST = "a" * 40

ABSURD = [
    "$6$rounds=999999999$salt$" + "a" * 86,
    "$5$rounds=10000001$salt$" + "A" * 43,
    "$6$rounds=" + "9" * 5000 + "$salt$" + "a" * 86,
    "$sha1$4294967295$salt$" + "a" * 28,
    "$md5,rounds=4294963199$mailmaps$$" + "a" * 22,
    "$md5$rounds=4294963199$mailmaps$$" + "a" * 22,
    "$2y$31$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW",
    "$2b$18$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW",
    "$argon2id$v=19$m=16777216,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$v=19$m=1048576,t=9,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$v=19$m=8,t=4294967295,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$v=19$m=65536,t=1,p=8192$c2FsdHNhbHQ$" + "A" * 43,
    "$1$salt$10000001$" + DIGEST,
    "$1$salt$9999999999$" + DIGEST,
    "10000001,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=",
    "sha1 99999999 seed 87FEC7768B73CCF9",
    "$7$K6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",  # N=2^22, r=8: 4 GiB
    "$7$C6........zSodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",  # p=2^29 and more
    "$y$jJT$mailmaps$" + "a" * 43,  # N=2^22, r=32: 16 GiB
    "$gy$jJT$mailmaps$" + "A" * 43,
    "$y$jzzzzzz5$mailmaps$" + "a" * 43,  # N=2^(10^9)
    "$y$j9T.zzzzzz$mailmaps$" + "a" * 43,  # 10^9 lanes
    "$y$j9T/zzzzzz$mailmaps$" + "a" * 43,  # t=10^9
    "$y$j9T0.zzzzzz$mailmaps$" + "a" * 43,  # both
]


@pytest.mark.parametrize("stored", ABSURD)
@pytest.mark.parametrize("prefix", ["", "{CRYPT}"])
def test_absurd(stored: str, prefix: str) -> None:
    if prefix and stored[:3] in ("$1$", "100", "sha"):
        prefix = {"$1$": "{PBKDF2}", "100": "{SCRAM-SHA-1}", "sha": "{OTP}"}[stored[:3]]
    with pytest.raises(CannotVerify, match="asks for more|above"):
        verify(b"right", prefix + stored)


@pytest.mark.parametrize(
    ("prefix", "count"), [(b"$y$", 11), (b"$gy$", 11), (b"$7$", 11), (b"$2y$", 17), (b"$6$", 10_000_000)]
)
def test_what_gensalt_gives_is_within_the_limits(prefix: bytes, count: int) -> None:
    setting = gensalt(prefix, count)
    assert setting is not None
    costs.check_crypt(setting)


@pytest.mark.parametrize("count", range(1, 12))
def test_yescrypts_memory_is_read_right(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """libxcrypt's gensalt: count 1 and 2 are 1 and 2 MiB with r=8, from 3 on r=32 and 4 MiB * 2^(count-3)."""
    setting = gensalt(b"$y$", count)
    assert setting is not None
    memory = (1 << 20) << (count - 1)
    monkeypatch.setattr(costs, "MAX_MEMORY", memory)
    costs.check_crypt(setting)
    monkeypatch.setattr(costs, "MAX_MEMORY", memory - 1)
    with pytest.raises(CannotVerify, match="memory"):
        costs.check_crypt(setting)


@pytest.mark.parametrize(
    ("parameters", "times"),
    [("j75", 1), ("j75..", 2), ("j75./", 3), ("j75/.", 2), ("j75/0", 4)],  # alone, p=2, p=3, t=1, t=3
)
def test_yescrypts_lanes_and_time_count(monkeypatch: pytest.MonkeyPatch, parameters: str, times: int) -> None:
    """gensalt never writes them, libcrypt takes them. N=2^10 and r=8 are 1 MiB."""
    stored = crypt(b"right", f"$y${parameters}$mailmaps$".encode())
    assert stored is not None
    assert verify(b"right", stored.decode())
    monkeypatch.setattr(costs, "MAX_WRITTEN", times << 20)
    assert verify(b"right", stored.decode())
    monkeypatch.setattr(costs, "MAX_WRITTEN", (times << 20) - 1)
    with pytest.raises(CannotVerify, match="more work"):
        verify(b"right", stored.decode())


def written(number: int) -> str:
    """encode64_uint32() of yescrypt-common.c, for numbers from 1."""
    start, end, more, number = 0, 47, 0, number - 1
    while number >= (count := (end + 1 - start) << (6 * more)):
        start, end, more, number = end + 1, end + 1 + (62 - end) // 2, more + 1, number - count
    digits = [start + (number >> (6 * more))]
    digits += [(number >> (6 * place)) & 63 for place in range(more - 1, -1, -1)]
    return "".join(
        "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[digit] for digit in digits
    )


@pytest.mark.parametrize("r", [1, 8, 48, 49, 64, 560, 561, 3000, 65536])
def test_yescrypts_long_numbers_are_read_right(monkeypatch: pytest.MonkeyPatch, r: int) -> None:
    setting = f"$y$j/{written(r)}$mailmaps$".encode()  # N=2^2, so 512 r bytes
    assert crypt(b"right", setting) is not None
    monkeypatch.setattr(costs, "MAX_MEMORY", 512 * r)
    costs.check_crypt(setting)
    monkeypatch.setattr(costs, "MAX_MEMORY", 512 * r - 1)
    with pytest.raises(CannotVerify, match="memory"):
        costs.check_crypt(setting)


def test_an_absurd_number_is_not_even_computed() -> None:
    """2^(10^9) is 128 MiB."""
    tracemalloc.start()
    try:
        with pytest.raises(CannotVerify):
            costs.check_crypt(b"$y$jzzzzzz5$mailmaps$")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_people_use_is_allowed() -> None:
    for stored in (
        "$6$rounds=656000$salt$" + "a" * 86,
        "$argon2id$v=19$m=65540,t=3,p=4$c2FsdHNhbHQ$" + "A" * 43,
        "$1$salt$600000$" + DIGEST,
        "$2y$12$11ipvo5dR6CwkzwmhwM26OXgzXwhV2PyPuLV.Qi31ILcRcThQpEiW",
    ):
        assert verify(b"right", stored) is False
