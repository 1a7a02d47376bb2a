"""Mailbox folders of accounts that are new in the files, where `filemaps.maildirs` says so.

Where no group may write a domain's folder, virtual(8) cannot make a box in it, and mail for a new account
would wait for the next `mailmaps maildirs`. So the box is there before the account is in the files. What
cannot be made is said, and keeps nobody out: that mail waits in the queue (4.2.0).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from mailmaps.config.settings import Postfix
from mailmaps.logs import events
from mailmaps.maildirs.action import State
from mailmaps.maildirs.box import RefusedBox, Row, box_of
from mailmaps.maildirs.walk import Walk, open_base

log = events(__name__)


def make_boxes(rows: Iterable[Row], postfix: Postfix) -> None:
    """Make those that are missing below virtual_mailbox_base, and put right what is safe to."""
    try:
        base = open_base(postfix.virtual_mailbox_base)
    except OSError as error:
        log.error("mailbox folders cannot be made", base=postfix.virtual_mailbox_base, reason=error.strerror)
        return
    try:
        with Walk(base, apply=True) as walk:
            for row in rows:
                _make(walk, row, postfix.virtual_minimum_uid)
    except OSError as error:
        log.error("mailbox folders cannot be made", base=postfix.virtual_mailbox_base, reason=error.strerror)
    finally:
        os.close(base)


def _make(walk: Walk, row: Row, minimum_uid: int) -> None:
    try:
        actions = walk.handle(box_of(row, minimum_uid))
    except RefusedBox as error:
        log.warning("no mailbox folder is made", address=row.address, reason=error)
        return
    for action in actions:
        fields = {"path": action.path, "found": action.found, "wanted": action.wanted}
        if action.state in (State.DONE, State.NOTE):
            log.info("mailbox folder", state=action.state.value, **fields)
        else:
            log.warning("mailbox folder is left as it is", state=action.state.value, **fields)
