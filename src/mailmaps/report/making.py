"""Makes one report: which logs, what is in them, what the database and the memory of logins add.

A log that cannot be opened ends it; what breaks off in the middle, and everything else that is missing, is
said in the report.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from mailmaps.config.policy import Limits, Senders
from mailmaps.config.settings import Settings
from mailmaps.report import journal, sources
from mailmaps.report.document import Around, Document, document
from mailmaps.report.entry import Entry
from mailmaps.report.logins import NAME, Logins, update
from mailmaps.report.own import Sentences, sentences
from mailmaps.report.period import Period
from mailmaps.report.reasons import printable
from mailmaps.report.site import Dormant, dormant_accounts, our_domains
from mailmaps.report.sources import SourceError
from mailmaps.report.tally import LEAD_IN, Tally


@dataclass(frozen=True)
class Wanted:
    """What to report on.

    `files` are empty for the machine's own log; `folder` is where that is looked for. Without a `memory` no
    login is remembered.
    """

    period: Period
    files: tuple[Path, ...]
    folder: Path
    memory: Path | None
    dormant_days: int
    top: int


def make(settings: Settings, wanted: Wanted, host: str) -> tuple[Document, Tally]:
    """The report. Raises `SourceError` when there is no log that can be read."""
    entries, source, notes, reaches_back = find(wanted)
    tally = Tally(wanted.period, of_settings(settings))
    unknown = 0
    for entry in entries:
        if entry is None:
            unknown += 1
        else:
            tally.take(entry)
    if unknown:
        notes.append(f"{unknown:,} lines are none of a syslog and were passed over.")
    begins = _known_from(wanted.period, tally, reaches_back)
    around = asyncio.run(
        _around(settings, wanted, tally, begins, host, f"{source}, {tally.lines:,} lines", notes)
    )
    return document(tally, around, wanted.top), tally


def of_settings(settings: Settings) -> Sentences:
    """Our sentences as they are now, and as they are by default."""
    limits, senders = Limits(), Senders()
    return sentences(
        (settings.limits.text, limits.text),
        (settings.senders.refusal, senders.refusal),
        (settings.senders.refusal_unauthenticated, senders.refusal_unauthenticated),
    )


def _known_from(period: Period, tally: Tally, reaches_back: bool) -> float | None:
    """From when on the log was looked at for logins: not for the whole period, where it begins later."""
    if reaches_back or tally.first is None or tally.first < period.start:
        return period.start if tally.first is not None else None
    return tally.first


def find(wanted: Wanted) -> tuple[Iterator[Entry | None], str, list[str], bool]:
    """The lines, what they are from in words, notes, whether there is older log. Raises `SourceError`."""
    since, until = wanted.period.start - LEAD_IN, wanted.period.end
    if wanted.files:
        return _files(list(wanted.files), since, until, [])
    reach = journal.reaches(wanted.period.start)
    found = sources.default_files(wanted.folder)
    if reach or (reach is False and not found):
        notes = [] if reach else ["The journal begins within this time: what was before it is not known."]
        return journal.read(since, until), "the journal", notes, reach
    if not found:
        raise SourceError(
            f"no mail log: neither {wanted.folder}/mail.log nor a journal with lines of Postfix can be read"
        )
    return _files(found, since, until, [])


def _files(
    paths: list[Path], since: float, until: float, notes: list[str]
) -> tuple[Iterator[Entry | None], str, list[str], bool]:
    journals = [path for path in paths if path.suffix == ".journal"]
    files, without = sources.in_order([path for path in paths if path not in journals], since)
    notes += [f"{path} has no line of a syslog." for path in without if path.stat().st_size]
    readers = [sources.read(path, until) for path in files]
    readers += [journal.read(since, until, path) for path in journals]
    older = len(files) + len(journals) + len(without) < len(paths)
    names = [str(path) for path in (*files, *journals)]
    source = f"{names[0]} and {len(names) - 1} more" if len(names) > 2 else " and ".join(names)
    return (
        chain.from_iterable(_as_far(one, notes) for one in readers),
        source or "no file of this time",
        notes,
        older,
    )


def _as_far(entries: Iterator[Entry | None], notes: list[str]) -> Iterator[Entry | None]:
    """What can be read of a file; where it breaks off that is noted, and the others are read."""
    try:
        yield from entries
    except SourceError as error:
        notes.append(f"Not all of the log could be read: {error}.")


async def _around(
    settings: Settings,
    wanted: Wanted,
    tally: Tally,
    begins: float | None,
    host: str,
    source: str,
    notes: list[str],
) -> Around:
    ours = await our_domains(settings)
    logins: Logins | None = None
    dormant: Dormant | None = None
    days, memory = wanted.dormant_days, wanted.memory
    if days and memory is not None and memory.is_dir() and begins is not None:
        logins, said = update(memory / NAME, begins, wanted.period.end, tally.logins)
        notes += said
        dormant = await dormant_accounts(settings, days, logins, wanted.period.end)
    elif days and memory is not None and not memory.is_dir():
        notes.append(f"Who logged in is not remembered: there is no folder {memory}.")
    return Around(host, source, [printable(note) for note in notes], ours, logins, dormant)


def as_json(found: Document, tally: Tally) -> str:
    """The report for programs: the period, every figure as a number, and the tables as they are shown."""
    return json.dumps(
        {
            "since": tally.period.start,
            "until": tally.period.end,
            "host": found.host,
            "source": found.source,
            "notes": found.notes,
            "figures": figures(tally),
            "slots": [
                {
                    "begins": begins,
                    **dict(
                        zip(("received", "delivered", "deferred", "bounced", "refused"), counts, strict=True)
                    ),
                }
                for begins, counts in zip(tally.period.edges, tally.slots, strict=True)
            ],
            "sections": [asdict(section) for section in found.sections],
        },
        ensure_ascii=False,
        indent=1,
    )


def figures(tally: Tally) -> dict[str, int]:
    """The numbers of the report by their names."""
    limited = tally.limits.totals
    return {
        "lines": tally.lines,
        "connections": tally.connections,
        "received": tally.received,
        "received_bytes": tally.received_bytes,
        "received_local": tally.submitted,
        "received_own": tally.internal,
        "delivered": tally.delivered,
        "delivered_bytes": tally.delivered_bytes,
        "passed_on": tally.passed,
        "deferred": tally.deferred_reasons.totals[0],
        "deferred_tries": tally.deferred_tries,
        "bounced": tally.bounced_reasons.totals[0],
        "expired": tally.expired,
        "refused": tally.refused_reasons.totals[0],
        "refused_warnings": tally.warned_reasons.totals[0],
        "held": tally.held.totals[0],
        "over_limit": limited[0],
        "limits_told": limited[1],
        "senders_refused": max(tally.senders.totals[0], tally.senders.totals[1]),
        "senders_observed": tally.senders.totals[2],
        "failed_logins": tally.failed_doors.totals[0],
        "in_queue": sum(message.is_in_queue for message in tally.messages.open().values()),
        **{f"{level}s": top.totals[0] for level, top in tally.complaints.items()},
    }
