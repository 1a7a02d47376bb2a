"""The values of one key as the bytes a mirror's file holds.

Postfix's `lmdb:` shall read the same files, and takes what comes before the first NUL (dict_lmdb.c, SCOPY):

    VALUE,VALUE...                          nearly always
    VALUE,VALUE... NUL VALUE NUL VALUE...   where the first part, split at ",", would be other values
    NUL                                     no values: the key is known and answers nothing

Values are UTF-8, other bytes escaped in the str (PEP 383), and never hold a NUL (PostgreSQL's text cannot).
"""

from __future__ import annotations

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
