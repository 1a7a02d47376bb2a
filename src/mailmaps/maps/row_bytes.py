"""The values of one key as the bytes a mirror's file holds.

Postfix's `lmdb:` shall read the same files, and takes what comes before the first NUL (dict_lmdb.c, SCOPY):

    VALUE,VALUE...                          nearly always
    VALUE,VALUE... NUL VALUE NUL VALUE...   where the first part, split at ",", would be other values
    NUL                                     no values: the key is known and answers nothing

Values are UTF-8, other bytes escaped in the str (PEP 383), and never hold a NUL (PostgreSQL's text cannot).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

# A longer key is in no file, whether or not the view has it. LMDB takes one byte more (mdb.c,
# MDB_MAXKEYSIZE): so long is the key of the file's own bookkeeping, which nobody can ask therefore.
LONGEST_KEY = 510


def pack(values: tuple[str, ...]) -> bytes:
    """The bytes to hold."""
    text = ",".join(values)
    if len(values) != text.count(",") + 1:
        text += "\0" + "\0".join(values)
    return text.encode("utf-8", "surrogateescape")


def unpack(data: bytes) -> tuple[str, ...]:
    """The values that were packed."""
    text = data.decode("utf-8", "surrogateescape")
    if "\0" not in text:
        return tuple(text.split(","))
    exact = text.partition("\0")[2]
    return tuple(exact.split("\0")) if exact else ()


class Rows(Collection[tuple[bytes, bytes]]):
    """Keys and their packed values, as two columns: `all_keys[n]` belongs to `all_values[n]`.

    Pairs would be made to be taken apart again, and the garbage collector looks at each of them, which took a
    fifth of the time of reading a view; it does not look at bytes.
    """

    __slots__ = ("all_keys", "all_values")

    def __init__(self, keys: list[bytes], values: list[bytes]) -> None:
        """Takes both lists over; they are of one length."""
        self.all_keys = keys
        self.all_values = values

    @staticmethod
    def of(pairs: Iterable[tuple[bytes, bytes]]) -> Rows:
        """These rows, which may be columns already."""
        if isinstance(pairs, Rows):
            return pairs
        pairs = list(pairs)
        return Rows([key for key, _ in pairs], [value for _, value in pairs])

    def __len__(self) -> int:
        return len(self.all_keys)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return zip(self.all_keys, self.all_values, strict=True)

    def __contains__(self, row: object) -> bool:
        return any(row == own for own in self)
