"""Files that Postfix reads itself (`mailmaps filemaps`): asked by postmap and smtpd(8), following, and made.

They are made of the usual dataset by the command itself. One postmap asks a file for many more keys than it
asks a server for, so that its start, which counts here as everywhere, is little of the time.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import asyncpg

from benchmarks.dataset import Dataset
from benchmarks.figures import Absolute, Figure, Result, Spread, at_least
from benchmarks.peers import ALIASES, Files, NotReady, Run
from benchmarks.rows import postmap, smtpd
from benchmarks.rows.changes import milliseconds, writing
from benchmarks.suite import Suite
from mailmaps.demo.data import BIG_DOMAIN, FIRST_ID

LMDB, CDB = "lmdb:", "cdb:"

MAILBOXES = "virtual_mailbox_maps"

MAKINGS = 3
"""Runs of the command with nothing there; each is followed by one that finds nothing to do."""

NO_CDB = "cdb: there is none here (apt-get install postfix-cdb)"

PATIENCE = 30.0
"""Seconds until a change counts as lost."""

MEGABYTE = 1e6

MAKE = """
WITH account AS (
   INSERT INTO user_accounts (username, uid, gid, password, email, mailbox, active)
   VALUES ($1, $4, $5, 'a_crypted_pw', $2, $3, '1') RETURNING username, email)
INSERT INTO user_addresses (username, alias) SELECT username, email FROM account
"""

REMOVE = """
WITH alias AS (DELETE FROM user_addresses WHERE username = $1)
DELETE FROM user_accounts WHERE username = $1
"""

Peers = Mapping[str, Files]


def files(suite: Suite) -> Result:
    """All about the files of the usual dataset."""
    types = _types()
    if LMDB not in types:
        return Result(left_out=["files: there is no lmdb: here (apt-get install postfix-lmdb)"])
    result = Result(left_out=[] if CDB in types else [NO_CDB])
    with ExitStack() as stack:
        peers = {
            kind: stack.enter_context(Files(suite.dataset, kind.removesuffix(":")))
            for kind in (LMDB, CDB)
            if kind in types
        }
        for peer in peers.values():
            peer.run()
        result.add(_lookups(suite, peers, found=True))
        result.add(_lookups(suite, peers, found=False))
        result.add(_smtpd(suite, peers[LMDB]))
        result.add(_following(suite, peers[LMDB]))
    result.add(making(suite, suite.dataset, MAKINGS))
    return result


def making(suite: Suite, dataset: Dataset, runs: int) -> Result:
    """The command with nothing there, and again with nothing to do: seconds and memory."""
    suite.say("  making files")
    new: list[Run] = []
    again: list[Run] = []
    for _ in range(runs):
        with Files(dataset) as lmdb:
            new.append(lmdb.run())
            again.append(lmdb.run())
    result = Result()
    for what, found in (("made", new), ("made again, nothing changed", again)):
        title = f"{dataset.addresses:,} addresses, all files: {what}"
        private = Spread.of([run.private / MEGABYTE for run in found])
        resident = Spread.of([run.resident / MEGABYTE for run in found])
        result.figures.append(Figure(title, "s", Spread.of([run.seconds for run in found])))
        result.figures.append(Figure(f"{title}, most memory without mapped files", "MB", private))
        result.absolutes.append(Absolute(f"{title}, most memory, mapped files and all", "MB", resident))
    return result


def _types() -> set[str]:
    """The types of maps that this Postfix has."""
    said = subprocess.run(["postconf", "-m"], capture_output=True, text=True, check=True, timeout=PATIENCE)
    return {f"{name}:" for name in said.stdout.split()}


def _lookups(suite: Suite, peers: Peers, *, found: bool) -> Result:
    """One postmap: the time of a lookup."""

    def keys(peer: str, number: int) -> Sequence[str]:
        count = suite.sizes.files if peer in peers else suite.sizes.one_client
        if found:
            return suite.dataset.known(count, number)
        return suite.dataset.unknown(count, f"{peer.split(':')[0].replace(' ', '')}{number}")

    with suite.mailmaps() as mailmaps:
        specs = {name: (peer.map(ALIASES), "") for name, peer in peers.items()}
        specs["mailmaps tcp:"] = (mailmaps.spec("tcp"), "")
        specs["pgsql:"] = (f"pgsql:{suite.dataset.files['virtual']}", "")
        measured = postmap.measure(suite, specs, keys, clients=1, found=found)
    title = f"files, {'hit' if found else 'never-seen unknown keys'}, one postmap client"
    lines = [
        postmap.speed(title, measured, LMDB, "mailmaps tcp:", at_least(20)),
        postmap.speed(title, measured, CDB, "mailmaps tcp:"),
        postmap.speed(title, measured, LMDB, "pgsql:"),
    ]
    return Result(postmap.those(lines), measured.absolutes(title))


def _smtpd(suite: Suite, lmdb: Files) -> Result:
    """RCPTs a second, all tables of one kind."""
    title = f"files, {smtpd.TITLE}"
    if left_out := smtpd.cannot_run(suite):
        return Result(left_out=[f"{title}: {left_out}"])
    with suite.mailmaps() as mailmaps:
        instances = {
            LMDB: {table: lmdb.map(table) for table in smtpd.FILES},
            "mailmaps tcp:": {table: mailmaps.spec("tcp", table) for table in smtpd.FILES},
            "pgsql:": smtpd.queries("pgsql:", suite.dataset),
        }
        found = smtpd.measure(suite, instances)
    result = Result()
    for kind, measured in found.items():
        those = f"{title}, {kind} recipients"
        result.figures.append(smtpd.more(those, measured, LMDB, "mailmaps tcp:"))
        result.figures.append(smtpd.more(those, measured, LMDB, "pgsql:"))
        result.absolutes += measured.absolutes(those)
    return result


def _following(suite: Suite, lmdb: Files) -> Result:
    """From the commit of a mailbox to the first postmap that finds it, and of its end to the first that does
    not: when nothing else happens, and while others write."""
    dataset, count = suite.dataset, suite.sizes.new_mailboxes
    title = "files, commit to postmap -q"
    lmdb.start()
    itself = [_delay(lmdb, dataset.address(0), is_there=True) for _ in range(count)]
    quiet = asyncio.run(_changes(dataset, lmdb, count))
    with writing(dataset) as written:
        busy = asyncio.run(_changes(dataset, lmdb, count))
    lmdb.stop()
    note = f"besides {written[0].median:.0f} changes a second that others write"
    return Result(
        [
            Figure(f"{title}: new mailbox", "ms", quiet[0], note="one postmap after the other asks"),
            Figure(f"{title}: removed mailbox", "ms", quiet[1]),
            Figure(f"{title}, while others write: new mailbox", "ms", busy[0], note=note),
            Figure(f"{title}, while others write: removed mailbox", "ms", busy[1]),
        ],
        [Absolute(f"{title}: postmap itself", "ms", milliseconds(sorted(itself)))],
    )


async def _changes(dataset: Dataset, lmdb: Files, count: int) -> tuple[Spread, Spread]:
    """Milliseconds until a new mailbox is there, and until it is gone."""
    connection = await asyncpg.connect(dataset.owner_dsn)
    new, gone = [], []
    for number in range(count):
        user = f"new{number}"
        address = f"{user}@{BIG_DOMAIN}"
        uid = FIRST_ID + dataset.accounts + number
        await connection.execute(MAKE, user, address, f"{BIG_DOMAIN}/{user}", uid, FIRST_ID)
        new.append(_delay(lmdb, address, is_there=True))
        await connection.execute(REMOVE, user)
        gone.append(_delay(lmdb, address, is_there=False))
    await connection.close()
    return milliseconds(sorted(new)), milliseconds(sorted(gone))


def _delay(lmdb: Files, address: str, *, is_there: bool) -> float:
    """Seconds until that is what postmap says, its own time among them."""
    began = time.perf_counter()
    while (lmdb.ask(MAILBOXES, address) is not None) != is_there:
        if time.perf_counter() - began > PATIENCE:
            raise NotReady(f"a change was not seen within {PATIENCE:g} s\n{lmdb.log()}")
    return time.perf_counter() - began
