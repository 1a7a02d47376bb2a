"""smtpd(8)'s settings for `mailmaps check`: who may relay, who may log in and how, who is refused.

An open relay and a password in the clear are what a postmaster fears most; neither is seen in a log before it
is too late. RFC 8314 4.1: logins belong on the submission ports, under TLS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from mailmaps.cli.main_cf import Endpoints, Reader
from mailmaps.cli.restrictions import logs_in, words_of
from mailmaps.config import Settings
from mailmaps.findings import Finding, Level

# What keeps strangers from relaying (postconf(5) smtpd_relay_restrictions: "at least one of").
_REFUSES = frozenset(
    {"reject", "reject_unauth_destination", "defer", "defer_if_permit", "defer_unauth_destination"}
)

# A network of strangers begins where it is wider than what one customer gets from his provider.
WIDEST = {4: 24, 6: 48}

# What a client says of itself, and may say anything.
_FORGED = (
    "check_sender_access",
    "check_helo_access",
    "check_ehlo_access",
    "check_recipient_access",
    "check_sasl_access",
)

_CERTIFICATES = (
    "smtpd_tls_chain_files",
    "smtpd_tls_cert_file",
    "smtpd_tls_eccert_file",
    "smtpd_tls_dcert_file",
)


def smtpd_findings(settings: Settings, readers: Sequence[Reader]) -> list[Finding]:
    """What is wrong with any smtpd of master.cf."""
    endpoints = Endpoints(settings)
    findings: list[Finding] = []
    for reader in readers:
        if reader.program == "smtpd":
            findings += _relays(reader, endpoints, settings)
            findings += _networks(reader)
            findings += _logins(reader)
            findings += _certificate(reader)
            findings += _unlisted(reader)
    return findings


def _relays(reader: Reader, endpoints: Endpoints, settings: Settings) -> Iterator[Finding]:
    """Postfix serves nobody without one of `_REFUSES` in either list ("at least one working instance")."""
    relay = words_of(reader.values, "smtpd_relay_restrictions")
    recipient = words_of(reader.values, "smtpd_recipient_restrictions")
    if not relay and not _REFUSES.isdisjoint(recipient):
        yield Finding(
            Level.WARNING,
            reader.service,
            "smtpd_relay_restrictions is empty: what permits in smtpd_recipient_restrictions before "
            "reject_unauth_destination, a table's OK too, lets strangers relay",
            "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination",
        )
    elif _REFUSES.isdisjoint(relay) and _REFUSES.isdisjoint(recipient):
        yield Finding(
            Level.ERROR,
            reader.service,
            "neither smtpd_relay_restrictions nor smtpd_recipient_restrictions refuses to relay: smtpd(8) "
            "does not serve like that",
            "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination",
        )
    deciding = relay or recipient
    if logs_in(reader.values) and not {"permit_sasl_authenticated", "permit"} & set(deciding):
        yield Finding(
            Level.WARNING,
            reader.service,
            "people log in here, but no permit_sasl_authenticated lets them send to other domains",
            "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination",
        )
    for number, word in enumerate(deciding):
        if word in _REFUSES:
            return
        table = deciding[number + 1] if number + 1 < len(deciding) else ""
        if word == "permit":
            yield Finding(
                Level.ERROR,
                reader.service,
                "`permit` stands before reject_unauth_destination: an open relay",
                "take it out",
            )
        elif word.startswith("check_") and endpoints.ours_in(table):
            yield from _permitting_table(reader, word, table, settings)


def _permitting_table(reader: Reader, word: str, table: str, settings: Settings) -> Iterator[Finding]:
    """access(5): OK, a number and RELAY permit; whatever stands in such a table is an action."""
    name = table.rpartition(":")[2]
    by_port = {f"tcp:{one.tcp}": one for one in settings.tables.values() if one.tcp}
    ours = by_port.get(table) or settings.tables.get(name)
    if ours is not None and not ours.parameter.startswith("check_"):
        yield Finding(
            Level.ERROR,
            reader.service,
            f"{word} asks {table}, which is {ours.parameter}: its values are no actions, and `OK` or a "
            "number there is an open relay",
            "a table of its own, with parameter = the restriction's name",
        )
    elif word in _FORGED:
        yield Finding(
            Level.WARNING,
            reader.service,
            f"{word} {table} stands before reject_unauth_destination: anybody may claim to be "
            "who it says OK to",
            "put it behind reject_unauth_destination, or into smtpd_sender_restrictions",
        )


def _networks(reader: Reader) -> Iterator[Finding]:
    for word in reader.values.get("mynetworks", "").replace(",", " ").split():
        try:
            network = ipaddress.ip_network(word.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            continue  # a table, a name, or excluded by `!`: Postfix's own matter
        if network.is_loopback or network.is_link_local or (network.is_private and network.prefixlen):
            continue
        if network.prefixlen >= WIDEST[network.version]:
            continue
        everybody = network.prefixlen == 0
        yield Finding(
            Level.ERROR if everybody else Level.WARNING,
            reader.service,
            f"mynetworks has {word}: {'everybody' if everybody else f'{network.num_addresses:,} addresses'} "
            "may relay wherever permit_mynetworks stands",
            "mynetworks = 127.0.0.0/8 [::1]/128 and the networks that are yours",
        )


def _logins(reader: Reader) -> Iterator[Finding]:
    values = reader.values
    if not logs_in(values):
        return
    if reader.name.rpartition(":")[2] in ("smtp/inet", "25/inet"):
        yield Finding(
            Level.WARNING,
            reader.service,
            "people can log in at port 25, where every guesser comes and TLS is not required",
            "smtpd_sasl_auth_enable = no in main.cf, and =yes by -o for submission and submissions",
        )
    if values.get("smtpd_tls_auth_only") != "yes" and not _always_encrypted(values):
        yield Finding(
            Level.ERROR,
            reader.service,
            "passwords are taken without TLS",
            "smtpd_tls_auth_only = yes, or smtpd_tls_security_level = encrypt for this service",
        )


def _always_encrypted(values: Mapping[str, str]) -> bool:
    return values.get("smtpd_tls_security_level") == "encrypt" or "yes" in (
        values.get("smtpd_tls_wrappermode"),
        values.get("smtpd_enforce_tls"),
    )


def _certificate(reader: Reader) -> Iterator[Finding]:
    values = reader.values
    offered = _always_encrypted(values) or values.get("smtpd_use_tls") == "yes"
    if not offered and values.get("smtpd_tls_security_level", "") in ("", "none"):
        return
    if any(values.get(name, "") not in ("", "none") for name in _CERTIFICATES):
        return
    yield Finding(
        Level.ERROR,
        reader.service,
        "TLS is offered without a certificate (smtpd_tls_cert_file, smtpd_tls_chain_files)",
        "smtpd_tls_chain_files = KEY, CERTIFICATE",
    )


def _unlisted(reader: Reader) -> Iterator[Finding]:
    values = reader.values
    if values.get("smtpd_reject_unlisted_recipient") == "no" and "reject_unlisted_recipient" not in {
        word
        for name in ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
        for word in words_of(values, name)
    }:
        yield Finding(
            Level.WARNING,
            reader.service,
            "smtpd_reject_unlisted_recipient is no: mail for nobody is accepted, and bounces to whoever "
            "is said to have sent it",
            "leave smtpd_reject_unlisted_recipient out",
        )
    for domains, maps in (
        ("virtual_mailbox_domains", "virtual_mailbox_maps"),
        ("relay_domains", "relay_recipient_maps"),
    ):
        if domains in reader.written and values.get(domains) and not values.get(maps):
            yield Finding(
                Level.WARNING,
                reader.service,
                f"{maps} is empty: every address of {domains} is accepted, and what nobody has bounces later",
                f"{maps} as mailmaps postfix-config prints it",
            )
