"""What keeps a stored hash from being used."""

from __future__ import annotations


class CannotVerify(Exception):
    """Nobody can say whether the password is right: the stored value is unusable.

    The text is for the postmaster's log. It has no part of the stored value but a scheme's name, and
    that only if it is one of the known ones: what stands in braces may be a password.
    """
