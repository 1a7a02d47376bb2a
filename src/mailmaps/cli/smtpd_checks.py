"""smtpd(8)'s settings for `mailmaps check`: who may relay, who may log in and how, who is refused.

An open relay and a password in the clear are what a postmaster fears most; neither is seen in a log before it
is too late. RFC 8314 4.1: logins belong on the submission ports, under TLS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from mailmaps.cli.main_cf import Reader
from mailmaps.cli.our_tables import OurTables
from mailmaps.cli.relay_checks import relay_findings
from mailmaps.cli.restrictions import logs_in, words_of
from mailmaps.config import Settings
from mailmaps.findings import Finding, Level

# A network of strangers begins where it is wider than what one customer gets from his provider.
WIDEST = {4: 24, 6: 48}

_CERTIFICATES = (
    "smtpd_tls_chain_files",
    "smtpd_tls_cert_file",
    "smtpd_tls_eccert_file",
    "smtpd_tls_dcert_file",
)


def smtpd_findings(settings: Settings, readers: Sequence[Reader]) -> list[Finding]:
    """What is wrong with any smtpd of master.cf."""
    tables = OurTables(settings)
    findings: list[Finding] = []
    for reader in readers:
        if reader.program == "smtpd":
            findings += relay_findings(reader, tables)
            findings += _networks(reader)
            findings += _logins(reader)
            findings += _certificate(reader)
            findings += _unlisted(reader)
            findings += _unmapped(reader)
    return findings


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


def _unmapped(reader: Reader) -> Iterator[Finding]:
    """FILTER_README: mail that comes back from a content filter is rewritten then, and only then."""
    values = reader.values
    overrides = values.get("receive_override_options", "").replace(",", " ").lower().split()
    filters = [values.get(name, "") for name in ("content_filter", "smtpd_proxy_filter")]
    if "no_address_mappings" in overrides and not any(filters) and values.get("virtual_alias_maps"):
        yield Finding(
            Level.ERROR,
            reader.service,
            "receive_override_options has no_address_mappings, and no content_filter brings the mail back: "
            "smtpd(8) accepts what virtual_alias_maps knows, cleanup(8) does not expand it, and it bounces",
            "take it out, or give it by -o to the service before a content filter alone",
        )
