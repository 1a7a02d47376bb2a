"""The sections of mailmaps.toml about sending: [policy], [senders], [limits], [notices]."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mailmaps.config.section import Inet, Network, Seconds, SecondsOrOff, Section, Unix
from mailmaps.policy.texts import check_text

FIELDS_OF_REFUSAL = ("login", "sender")
FIELDS_OF_LIMIT = ("name", "limit", "unit", "window")


def _address_or_domain(value: str) -> str:
    if not re.fullmatch(r"[^@\s]*@[^@\s]+", value):
        raise ValueError("neither an address nor @domain")
    return value


def _mail_address(value: str) -> str:
    if value and not re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+", value):
        raise ValueError("not one address such as postmaster@example.com")
    return value


def _host_and_port(value: str) -> str:
    if not re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", value):
        raise ValueError("not of the form HOST:PORT")
    if not 0 < int(value.rpartition(":")[2]) < 65536:
        raise ValueError("there is no such port")
    return value


AddressOrDomain = Annotated[str, AfterValidator(_address_or_domain)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
Refusal = Annotated[str, AfterValidator(lambda value: check_text(value, FIELDS_OF_REFUSAL))]
LimitText = Annotated[str, AfterValidator(lambda value: check_text(value, FIELDS_OF_LIMIT))]
# What one message may count for is bounded by smtpd_recipient_limit; the counters are 64-bit numbers.
Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Policy(Unix):
    """[policy]"""

    inet: Inet = "127.0.0.1:17018"


class Senders(Section):
    """[senders]: who may send as whom."""

    mode: Literal["enforce", "observe", "off"] = "enforce"
    on_failure: Literal["defer", "dunno"] = "defer"
    own: bool = True
    aliases: bool = True
    forwards: bool = True
    domain_aliases: bool = True
    catch_all: bool = True
    plus: bool = True
    grants: bool = True
    services: bool = True
    null_sender: bool = True
    unowned: bool = False
    unauthenticated: Literal["refuse", "observe", "allow"] = "observe"
    unauthenticated_networks: list[Network] = []
    unauthenticated_senders: list[AddressOrDomain] = []
    refusal: Refusal = "You are logged in as {login}, which may not send as {sender}."
    refusal_unauthenticated: Refusal = "{sender} is an address of ours: log in to send as it."


class Limits(Section):
    """[limits]: how much may be sent; 0 is no limit."""

    action: Literal["defer", "reject", "hold", "observe"] = "defer"
    on_failure: Literal["defer", "dunno"] = "defer"
    login_messages_hour: Limit = 0
    login_messages_day: Limit = 0
    login_recipients_hour: Limit = 0
    login_recipients_day: Limit = 0
    domain_messages_hour: Limit = 0
    domain_messages_day: Limit = 0
    domain_recipients_hour: Limit = 0
    domain_recipients_day: Limit = 0
    exempt: list[str] = []
    text: LimitText = "{name} has reached its limit of {limit} {unit} {window}; try again later."


class Notices(Section):
    """[notices]: what the postmaster is told by mail; nothing while `to` is empty."""

    to: MailAddress = ""
    user: bool = False
    sender: MailAddress = ""
    smtp: HostAndPort = "127.0.0.1:25"
    tls: Literal["no", "starttls", "tls"] = "no"
    period: Seconds = 21_600.0
    foreign_senders: int = Field(default=10, ge=0)
    database_away: SecondsOrOff = 300.0
