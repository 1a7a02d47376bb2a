"""Who may relay by the restriction lists, for `mailmaps check`: others find an open relay within hours.

smtpd(8) asks both smtpd_relay_restrictions and smtpd_recipient_restrictions: mail goes out where both let it
pass. A list is safe where it refuses strangers before anything in it permits what a stranger may have
(postconf(5), smtpd_relay_restrictions; access(5): OK, RELAY and a number permit).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mailmaps.cli.main_cf import Reader
from mailmaps.cli.our_tables import OurTables
from mailmaps.cli.restrictions import Step, lets_serve, logs_in, steps_of
from mailmaps.findings import Finding, Level

_LISTS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
_REMEDY = "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination"

# What a client says of itself, and may say anything.
_FORGED = ("check_sender_access", "check_helo_access", "check_recipient_access")

# Whose OK smtpd(8) takes (not that of the forbid_allowlist kind), of everybody who comes.
_OF_ANYBODY = (*_FORGED, "check_client_access", "check_ccert_access")

# Permits for whom others say is good: a list in the DNS, or an address in HELO (smtpd_check.c).
_BY_OTHERS = {
    "permit_naked_ip_address": "anybody may say HELO with an address",
    "permit_dnswl_client": "all hosts of that list may relay",
    "permit_rhswl_client": "all hosts of that list may relay",
}

# Where systems keep the certificates of every authority.
_EVERY_AUTHORITY = ("/etc/ssl/", "/etc/pki/", "/usr/share/ca-certificates", "/usr/lib/ssl")


def relay_findings(reader: Reader, tables: OurTables) -> Iterator[Finding]:
    """What is wrong with who may relay through one smtpd."""
    values = reader.values
    relay, recipient = (steps_of(values, name) for name in _LISTS)
    serves = [lets_serve(values, name) for name in _LISTS]
    if not any(serves):
        yield Finding(
            Level.ERROR,
            reader.service,
            "neither smtpd_relay_restrictions nor smtpd_recipient_restrictions refuses to relay: smtpd(8) "
            "does not serve like that",
            _REMEDY,
        )
    elif not relay:
        yield Finding(
            Level.WARNING,
            reader.service,
            "smtpd_relay_restrictions is empty: what permits in smtpd_recipient_restrictions before "
            "reject_unauth_destination, a table's OK too, lets strangers relay",
            _REMEDY,
        )
    deciding = {step.word for step in relay or recipient}
    if logs_in(values) and not {"permit_sasl_authenticated", "permit"} & deciding:
        yield Finding(
            Level.WARNING,
            reader.service,
            "people log in here, but no permit_sasl_authenticated lets them send to other domains",
            _REMEDY,
        )
    found = [(list(_holes(reader, steps, tables)), _refuses(steps)) for steps in (relay, recipient)]
    if not any(serves) or any(closed and not holes for holes, closed in found):
        return
    for holes, _ in found:
        yield from holes


def _refuses(steps: Sequence[Step]) -> bool:
    return any(step.refuses for step in steps)


def _holes(reader: Reader, steps: Sequence[Step], tables: OurTables) -> Iterator[Finding]:
    """What permits a stranger before the list refuses him."""
    for step in steps:
        if step.refuses:
            return
        if step.word == "permit":
            yield Finding(
                Level.ERROR,
                reader.service,
                "`permit` stands before reject_unauth_destination: an open relay",
                "take it out",
            )
        elif because := _BY_OTHERS.get(step.word):
            yield Finding(
                Level.ERROR,
                reader.service,
                f"{step.word} stands before reject_unauth_destination: {because}",
                "put it behind reject_unauth_destination",
            )
        elif step.word == "permit_tls_all_clientcerts":
            yield from _certificates(reader)
        elif step.word == "permit_mx_backup" and not reader.values.get("permit_mx_backup_networks"):
            yield Finding(
                Level.WARNING,
                reader.service,
                "permit_mx_backup stands before reject_unauth_destination, and permit_mx_backup_networks is "
                "empty: whoever names this host as MX of his domain may relay to it",
                "permit_mx_backup_networks = networks of the primary MX hosts; or relay_domains instead",
            )
        elif step.word in _OF_ANYBODY:
            yield from _table(reader, step, tables)


def _table(reader: Reader, step: Step, tables: OurTables) -> Iterator[Finding]:
    ours = tables.named(step.argument)
    if _permits(step.argument):
        yield Finding(
            Level.ERROR,
            reader.service,
            f"{step.word} {step.argument} stands before reject_unauth_destination, and permits everybody: "
            "an open relay",
            "take it out",
        )
    elif ours is not None and not ours.parameter.startswith("check_"):
        yield Finding(
            Level.ERROR,
            reader.service,
            f"{step.word} asks {step.argument}, which is {ours.parameter or 'no table of ours'}: its values "
            "are no actions, and `OK` or a number there is an open relay",
            "a table of its own, with parameter = the restriction's name",
        )
    elif ours is not None and step.word in _FORGED:
        yield Finding(
            Level.WARNING,
            reader.service,
            f"{step.word} {step.argument} stands before reject_unauth_destination: anybody may claim to be "
            "who it says OK to",
            "put it behind reject_unauth_destination, or into smtpd_sender_restrictions",
        )


def _permits(table: str) -> bool:
    """Whether a table has one answer for all, and that permits."""
    kind, _, value = table.removeprefix("proxy:").partition(":")
    words = value.strip("{} \t").lower().split()
    return kind == "static" and bool(words) and (words[0] in ("ok", "relay", "permit") or _is_number(words))


def _is_number(words: Sequence[str]) -> bool:
    """`550` alone permits, `550 text` refuses (access(5))."""
    return len(words) == 1 and words[0].isdecimal()


def _certificates(reader: Reader) -> Iterator[Finding]:
    """Any certificate of an authority that smtpd trusts: postconf(5) wants a private one for that."""
    values = reader.values
    if "yes" not in (values.get("smtpd_tls_ask_ccert"), values.get("smtpd_tls_req_ccert")):
        return
    trusted = [values.get(name, "") for name in ("smtpd_tls_CAfile", "smtpd_tls_CApath")]
    everybody = values.get("tls_append_default_CA") == "yes" or any(
        one.startswith(_EVERY_AUTHORITY) for one in trusted
    )
    if not everybody and not any(trusted):
        return  # none is trusted, so nobody is permitted
    yield Finding(
        Level.ERROR if everybody else Level.WARNING,
        reader.service,
        "permit_tls_all_clientcerts stands before reject_unauth_destination: whoever has a certificate of an "
        "authority in smtpd_tls_CAfile or smtpd_tls_CApath may relay",
        "permit_tls_clientcerts, with the fingerprints in relay_clientcerts",
    )
