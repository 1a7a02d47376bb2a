"""The policy service's part of `mailmaps check`: is it asked where it must be, and by everybody?

A policy service that nobody asks, or only after somebody else has permitted, checks and limits nobody, and
nothing anywhere says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from mailmaps.cli.main_cf import LOOPBACK, listens
from mailmaps.cli.restrictions import BY_MAP, COUNTING, LISTS, Asked, Smtpd, asked, logs_in, words_of
from mailmaps.config import Settings, SettingsError
from mailmaps.config.policy import Limits
from mailmaps.database import policy_checks
from mailmaps.database.connect import BREAKS, ConnectError, connect_to_write, write_database
from mailmaps.database.rights import excess_findings
from mailmaps.findings import Finding, Level

# Ports that look like ours, when a check_policy_service names one (mailmaps.toml has 17011 to 17032).
NEAR = range(17000, 17100)
USUAL = "127.0.0.1:17018"


async def writing_findings(settings: Settings) -> list[Finding]:
    """What is wrong with the database that sending is counted in, if there is one."""
    if not settings.database.write_dsn:
        return []
    try:
        connection = await connect_to_write(write_database(settings.database))
    except (ConnectError, SettingsError) as error:
        remedy = "is it up, and are write_dsn and its password right?"
        return [Finding(Level.ERROR, "database.write_dsn", str(error), remedy)]
    try:
        findings = await policy_checks.policy_findings(connection)
        return findings + await excess_findings(
            connection, "database.write_dsn", needs=[policy_checks.SUBJECT]
        )
    finally:
        with suppress(*BREAKS):  # it is of no use any more either way
            await connection.close(timeout=settings.database.connect_timeout)


def asks_us(settings: Settings, smtpds: Sequence[Smtpd]) -> bool:
    """Whether any smtpd asks our policy service."""
    return any(is_ours(settings, one) for smtpd in smtpds for one in asked(smtpd.values))


def is_ours(settings: Settings, one: Asked) -> bool:
    """Whether it is our endpoint. A chrooted smtpd leaves out where a socket's path begins."""
    family, _, where = one.endpoint.partition(":")
    if family == "inet":
        host, _, port = where.rpartition(":")
        ours, _, our_port = settings.policy.inet.rpartition(":")
        return port == our_port and (host == ours or {host, ours} <= set(LOOPBACK))
    where = where if family == "unix" else one.endpoint
    return bool(where and settings.policy.unix) and f"/{settings.policy.unix}".endswith(
        f"/{where.lstrip('/')}"
    )


def service_findings(settings: Settings, smtpds: Sequence[Smtpd]) -> list[Finding]:
    """What is wrong with who asks the policy service; OK lines included."""
    findings: list[Finding] = []
    ours: dict[str, list[Asked]] = {}
    for smtpd in smtpds:
        found = asked(smtpd.values)
        if mine := [one for one in found if is_ours(settings, one)]:
            ours[smtpd.name] = mine
            findings += _behind(smtpd, mine)
            findings += _only_logged(smtpd, mine)
            findings += _open_in_an_outage(smtpd, mine)
            findings += _by_both(smtpd, settings)
        findings += _nobody_listens(smtpd, [one for one in found if one not in mine], settings)
    findings += _not_limited(smtpds, ours, settings)
    findings += _not_checked(smtpds, ours, settings)
    if ours and not findings:
        places = "; ".join(
            f"{name} ({', '.join(dict.fromkeys(one.parameter for one in found))})"
            for name, found in ours.items()
        )
        findings.append(Finding(Level.OK, "policy", f"asked by {places}"))
    if ours and settings.senders.mode == "observe":
        text = 'senders.mode is "observe": nobody is refused, and what would have been is noted'
        findings.append(Finding(Level.OK, "policy", text, "mailmaps senders observed lists them"))
    return findings


def _behind(smtpd: Smtpd, ours: list[Asked]) -> Iterator[Finding]:
    for one in ours:
        if one.behind:
            yield Finding(
                Level.ERROR,
                smtpd.subject,
                f"{one.parameter}: {one.behind} stands before check_policy_service, so that whoever it "
                "permits is not asked about",
                f"put check_policy_service before {one.behind}",
            )


def _only_logged(smtpd: Smtpd, ours: list[Asked]) -> Iterator[Finding]:
    for one in ours:
        if one.warned:
            yield Finding(
                Level.WARNING,
                smtpd.subject,
                f"{one.parameter}: warn_if_reject stands before check_policy_service: what it refuses "
                "is only logged",
                'take warn_if_reject out; senders.mode and limits.action have "observe" for a trial',
            )


def _open_in_an_outage(smtpd: Smtpd, ours: list[Asked]) -> Iterator[Finding]:
    """Postfix's default is 451; anything that lets mail pass makes a dead daemon an open door."""
    name = "smtpd_policy_service_default_action"
    common = smtpd.values.get(name, "")
    for action in dict.fromkeys(one.attributes.get("default_action", common) for one in ours):
        word = action.partition(" ")[0].lower()
        if word in ("dunno", "ok", "permit") or (word.isdecimal() and word == action):
            yield Finding(
                Level.WARNING,
                smtpd.subject,
                f"the policy service's default action is {action}: while mailmaps does not run, everybody "
                "sends as anybody, without limits",
                f"leave {name} out",
            )


def _by_both(smtpd: Smtpd, settings: Settings) -> Iterator[Finding]:
    mapped = [word for word in words_of(smtpd.values, "smtpd_sender_restrictions") if word in BY_MAP]
    if mapped and settings.senders.mode == "observe":
        yield Finding(
            Level.WARNING,
            smtpd.subject,
            f'senders.mode is "observe", but {mapped[0]} refuses by smtpd_sender_login_maps all the same',
            f"take {mapped[0]} out: the policy service checks senders",
        )


def _nobody_listens(smtpd: Smtpd, others: list[Asked], settings: Settings) -> Iterator[Finding]:
    for one in others:
        host, _, port = one.endpoint.removeprefix("inet:").rpartition(":")
        near = one.endpoint.startswith("inet:") and port.isdecimal() and int(port) in NEAR
        if near and host in LOOPBACK and not listens(host.strip("[]"), int(port)):
            ours = settings.policy.inet or f'nowhere (policy.inet is "", and would be "{USUAL}")'
            yield Finding(
                Level.WARNING,
                smtpd.subject,
                f"{one.parameter} asks {one.endpoint}, where nobody listens; mailmaps does at {ours}",
                f"check_policy_service inet:{settings.policy.inet or USUAL}",
            )


def _not_limited(
    smtpds: Sequence[Smtpd], ours: dict[str, list[Asked]], settings: Settings
) -> Iterator[Finding]:
    if not limits_are_set(settings.limits):
        return
    remedy = f"smtpd_data_restrictions = check_policy_service inet:{settings.policy.inet or USUAL}"
    counted = {name for name, found in ours.items() if any(one.parameter in COUNTING for one in found)}
    if not counted:
        where = " or ".join(COUNTING)
        text = f"[limits] are set, but no service asks at {where}: nobody is limited"
        yield Finding(Level.WARNING, "limits", text, remedy)
        return
    for smtpd in smtpds:
        if logs_in(smtpd.values) and smtpd.name not in counted:
            text = "[limits] are set, but this service does not ask: who logs in there is not limited"
            yield Finding(Level.WARNING, smtpd.subject, text, remedy)


def limits_are_set(limits: Limits) -> bool:
    """Whether somebody wants limits: a number, or what happens to who is over one."""
    usual = Limits()
    numbers = [getattr(limits, name) for name in Limits.model_fields if name.endswith(("_hour", "_day"))]
    return any(numbers) or limits.action != usual.action


def _not_checked(
    smtpds: Sequence[Smtpd], ours: dict[str, list[Asked]], settings: Settings
) -> Iterator[Finding]:
    """Where people log in and neither way of checking senders is used, while it is used elsewhere."""
    if not ours or settings.senders.mode == "off":
        return
    for smtpd in smtpds:
        by_map = any(BY_MAP.intersection(words_of(smtpd.values, name)) for name in _OF_SENDERS)
        if logs_in(smtpd.values) and smtpd.name not in ours and not by_map:
            text = "people log in here, and nobody asks as whom they may send"
            remedy = f"smtpd_sender_restrictions = check_policy_service inet:{settings.policy.inet or USUAL}"
            yield Finding(Level.WARNING, smtpd.subject, text, remedy)


# The lists that know a sender (at RCPT, as smtpd_delay_reject has it).
_OF_SENDERS = LISTS[: LISTS.index("smtpd_data_restrictions")]
