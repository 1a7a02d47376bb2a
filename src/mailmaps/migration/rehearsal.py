"""Tries the switch and the way back on a copy of main.cf and master.cf, before anybody does it for good.

What it finds out there: that `postconf` takes every command, that the values read back are the planned
ones, that proxymap(8) still approves what stays behind `proxy:`, and that the way back ends where it began.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailmaps import postconf
from mailmaps.migration import commands, services, words
from mailmaps.migration.configuration import Configuration
from mailmaps.migration.plan import Change, Plan
from mailmaps.migration.readers import ASK_NOTHING
from mailmaps.postconf import Override

FILES = ("main.cf", "master.cf")


class RehearsalError(Exception):
    """The commands do not do what was planned; the text says where."""


def rehearse(configuration: Configuration, plan: Plan) -> None:
    """Add to `plan` what proxymap(8) has to approve, and try everything.

    Raises `RehearsalError`, `postconf.PostconfError`.
    """
    with _copy(configuration.directory) as copy:
        before = _state(copy)
        _run(copy, commands.switch(plan.changes, configuration.services))
        if (approval := _approval(configuration, plan, copy)) is not None:
            plan.changes.append(approval)
            _run(copy, commands.switch([approval], configuration.services))
        _check_written(copy, plan.changes)
        _check_in_force(configuration, plan, copy)
        _run(copy, commands.back(plan.changes, configuration.services))
        if _state(copy) != before:
            raise RehearsalError("on a copy of the configuration, the way back did not end where it began")


@contextmanager
def _copy(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mailmaps-rehearsal-") as folder:
        for name in FILES:
            shutil.copyfile(directory / name, Path(folder) / name)
        _date_back(Path(folder))
        yield Path(folder)


def _run(copy: Path, todo: list[commands.Command]) -> None:
    for command in todo:
        postconf.edit(copy, *command)
    _date_back(copy)


def _date_back(copy: Path) -> None:
    """Postfix waits until main.cf has not changed for a second (util/dict.c, dict_load_file_xt)."""
    for name in FILES:
        os.utime(copy / name, (0, 0))


def _state(copy: Path) -> tuple[dict[str, str], list[Override], list[str]]:
    return (
        postconf.parameters(copy),
        postconf.all_overrides(copy),
        [one.line for one in postconf.services(copy).values()],
    )


def _check_written(copy: Path, changes: list[Change]) -> None:
    main_cf = postconf.parameters(copy)
    master_cf = {(one.service, one.parameter): one.value for one in postconf.all_overrides(copy)}
    for one in changes:
        found = master_cf.get((one.service, one.parameter)) if one.service else main_cf.get(one.parameter)
        if found is None or words.texts(found) != words.texts(one.new):
            place = f"{one.service} -o {one.parameter}" if one.service else one.parameter
            raise RehearsalError(f"on a copy of the configuration, {place} did not become {one.new!r}")


def _check_in_force(configuration: Configuration, plan: Plan, copy: Path) -> None:
    """Every list of every service leads to the tables of before, or to those that are made of them."""
    overrides = postconf.all_overrides(copy)
    for service in dict.fromkeys(["", *(one.service for one in overrides)]):
        local = [one for one in overrides if one.service == service]
        after = {
            name: value.replace(str(copy), str(configuration.directory))
            for name, value in postconf.parameters(copy, all_of_them=True, expanded=True, local=local).items()
        }
        program = configuration.services[service].program if service else ""
        wrong = (
            [] if program in ASK_NOTHING else list(services.differing(configuration, plan, service, after))
        )
        if wrong:
            place = f"the service {service}" if service else "main.cf"
            raise RehearsalError(
                f"on a copy of the configuration, {' and '.join(wrong)} of {place} would not lead to "
                "the same tables as today"
            )


def _approval(configuration: Configuration, plan: Plan, copy: Path) -> Change | None:
    """What proxymap(8) no longer approves, because it was approved as part of a value that moves.

    That is needed for what stays, and for what moves too: an smtpd(8) that is in a session when Postfix is
    reloaded still asks the old tables, and dies ("proxymap service is not configured for table", fatal in
    global/dict_proxy.c) when the new proxymap(8) does not know them. The same goes for the way back.
    """
    name = "proxy_read_maps"
    approved = set(words.texts(configuration.expanded.get(name, "")))
    still = postconf.parameters(copy, all_of_them=True, expanded=True).get(name, "")
    approved_now = set(words.texts(still.replace(str(copy), str(configuration.directory))))
    used = {text for fate in plan.fates for text in fate.segment.maps}
    used |= {text for change in plan.kept for text in words.texts(change.new)}
    missing = sorted(text for text in used & approved - approved_now if text.startswith("proxy:"))
    if not missing:
        return None
    new = " ".join([configuration.raw[name], *missing])
    return Change(name, "", configuration.written.get(name), new, _why(plan, missing))


def _why(plan: Plan, missing: list[str]) -> str:
    staying = {text for fate in plan.staying for text in fate.segment.maps}
    if staying & set(missing):
        return "the last ones stay, and were approved until now as part of a value that moves"
    return (
        "sessions that are open while you switch still ask the last ones, and end if they are refused; when "
        "all is well, `postconf -X proxy_read_maps` (or the old value) does no harm"
    )
