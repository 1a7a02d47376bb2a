"""The grants on disk, so that a restart while the database is away still knows them.

One JSON file, written whole and renamed; its time of modification is when the grants were last confirmed.
What cannot be read, or is of another database, is as if it were not there: the grants are then "not known".
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from mailmaps.logs import events
from mailmaps.policy.grants import Grant

log = events(__name__)

NAME = "grants.json"


class Saved(NamedTuple):
    """What was on disk; `age` in seconds since it was last confirmed."""

    grants: list[Grant]
    age: float


class GrantsFile:
    """The file in `directory`; `place` names the database that the grants are of."""

    def __init__(self, directory: Path, place: str) -> None:
        self._path = directory / NAME
        self._place = place
        self._has_complained = False

    def load(self) -> Saved | None:
        """What is there, or None."""
        try:
            age = time() - self._path.stat().st_mtime
            content = json.loads(self._path.read_text("utf-8"))
            if content["place"] != self._place or age < 0:
                return None
            return Saved([_grant(one) for one in content["grants"]], age)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the file of grants cannot be used", path=self._path, reason=type(error).__name__)
            return None

    def save(self, grants: Sequence[Grant]) -> None:
        """Write them; a disk that does not take them is logged once."""
        content = {"place": self._place, "grants": [_values(grant) for grant in grants]}
        beside = self._path.with_suffix(".new")
        try:
            beside.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
            beside.chmod(0o600)
            beside.replace(self._path)
            self._has_complained = False
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                why = os.strerror(error.errno or 0)
                log.warning("the file of grants cannot be written", path=self._path, reason=why)

    def confirm(self) -> None:
        """They are still those of the database."""
        with suppress(OSError):
            os.utime(self._path)


def _values(grant: Grant) -> dict[str, Any]:
    return {
        "number": grant.number,
        "login": grant.login,
        "address": grant.address,
        "expires": grant.expires,
        "networks": [str(network) for network in grant.networks],
        "reason": grant.reason,
    }


def _grant(one: dict[str, Any]) -> Grant:
    networks = tuple(ip_network(network) for network in one["networks"])
    expires = None if one["expires"] is None else float(one["expires"])
    return Grant(
        int(one["number"]), str(one["login"]), str(one["address"]), expires, networks, str(one["reason"])
    )
