"""The settings: every name, type and default of mailmaps.toml.

The shipped mailmaps.toml documents each of them and equals these defaults (tested). Unknown names
and wrong types are errors. A value is never printed, since it may be a password in the wrong place.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mailmaps.config.dsn import check_dsn
from mailmaps.config.policy import Limits, Notices, Policy, Senders
from mailmaps.config.section import (
    Inet,
    Mode,
    Network,
    Seconds,
    SecondsOrOff,
    Section,
    Unix,
    UnixPath,
    split_inet,
)
from mailmaps.maps.tables import KINDS


def _source(value: str) -> str:
    if value == "builtin" or re.fullmatch(r"view:[A-Za-z_][\w$]*\.[A-Za-z_][\w$]*", value):
        return value
    if re.fullmatch(r"pgsql:(/.+|[A-Za-z_][\w.-]*)", value):
        return value
    raise ValueError(
        'not a source; known are "builtin", "view:SCHEMA.NAME", "pgsql:/path/of/file.cf" and '
        '"pgsql:NAME" (NAME_query and its like in main.cf)'
    )


def _table_name(value: str) -> str:
    # A socketmap name ends at the first blank and begins after the last colon (dict_sockmap.c:359).
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", value):
        raise ValueError("a table's name is made of letters, digits, and _ . - after the first")
    return value


def _login_source(value: str) -> str:
    if value == "builtin" or value.startswith("view:"):
        return _source(value)
    raise ValueError('not a source of logins; known are "builtin" and "view:SCHEMA.NAME"')


def _scheme(value: str) -> str:
    if value.upper() != "CRYPT":  # the rule: hash libraries take a while to load
        from mailmaps.auth.passwords import is_known

        if not is_known(value):
            raise ValueError("not a scheme of password hashes; docs/passwords.md has them")
    return value


def _pam_service(value: str) -> str:
    # libpam opens /etc/pam.d/NAME in lower case (pam_start(3)).
    if not re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", value):
        raise ValueError("not the name of a file in /etc/pam.d, in lower case")
    return value


def _relation(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z_][\w$]*\.)?[A-Za-z_][\w$]*", value):
        raise ValueError("not the name of a table, such as mailbox or public.mailbox")
    return value


def _parameter(value: str) -> str:
    if value not in KINDS:
        raise ValueError(
            "no such table; one that is not named after a Postfix parameter whose search order is known "
            'has to name one (parameter = "check_sender_access")'
        )
    return value


def _mail_version(value: str) -> str:
    if value and not re.match(r"\d+\.\d+", value):
        raise ValueError("not a version such as 3.7.11 (see `postconf -d mail_version`)")
    return value


def _delivery(value: str) -> str:
    if value == "virtual" or re.fullmatch(r"[a-z][\w-]*:\S*", value):
        return value
    raise ValueError(
        'not "virtual" nor of the form TRANSPORT:NEXTHOP, such as lmtp:unix:private/dovecot-lmtp'
    )


def _directory(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a directory needs an absolute path")
    return value


Dsn = Annotated[str, AfterValidator(check_dsn)]
DsnOrNone = Annotated[str, AfterValidator(lambda value: value and check_dsn(value))]
DirectoryPath = Annotated[str, AfterValidator(_directory)]
SourceName = Annotated[str, AfterValidator(_source)]
RelationName = Annotated[str, AfterValidator(_relation)]
TableName = Annotated[str, AfterValidator(_table_name)]
Parameter = Annotated[str, AfterValidator(_parameter)]
MailVersion = Annotated[str, AfterValidator(_mail_version)]
Scheme = Annotated[str, AfterValidator(_scheme)]
LoginSource = Annotated[str, AfterValidator(_login_source)]
PamService = Annotated[str, AfterValidator(_pam_service)]
HomeBase = Annotated[str, AfterValidator(lambda value: value and _directory(value))]
Delivery = Annotated[str, AfterValidator(_delivery)]


class Log(Section):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Database(Section):
    """[database]"""

    dsn: Dsn = Field(default="postgresql://mailreader@127.0.0.1:5432/mail", repr=False)
    password_file: str = ""
    listen_dsn: DsnOrNone = Field(default="", repr=False)
    auth_dsn: DsnOrNone = Field(default="", repr=False)
    auth_password_file: str = ""
    write_dsn: DsnOrNone = Field(default="", repr=False)
    write_password_file: str = ""
    admin_dsn: DsnOrNone = Field(default="", repr=False)
    admin_password_file: str = ""
    connections: int = Field(default=4, ge=1, le=100)
    connect_timeout: Seconds = 3.0
    lookup_deadline: Seconds = 5.0
    pgbouncer: bool = False
    honour_active: bool | None = None


class Mirror(Section):
    """[mirror]"""

    enabled: bool = True
    directory: DirectoryPath = "/var/lib/mailmaps"
    compare: Seconds = 3600.0


class Filemaps(Section):
    """[filemaps]"""

    directory: DirectoryPath = "/var/lib/mailmaps-filemaps"
    type: Literal["lmdb", "cdb"] = "lmdb"
    mode: Mode = "0644"
    group: str = ""
    compare: Seconds = 3600.0
    linger: SecondsOrOff = 3600.0
    most_removed: float = Field(default=0.1, ge=0, le=1)
    maildirs: bool = False


class Cache(Section):
    """[cache]"""

    ttl: SecondsOrOff = 30.0
    negative_ttl: SecondsOrOff = 5.0
    size: int = Field(default=100_000, ge=0)
    negative_size: int = Field(default=50_000, ge=0)
    refresh: Seconds = 1.0
    max_stale: SecondsOrOff = 86_400.0
    max_stale_not_found: SecondsOrOff = 600.0
    max_stale_senders: SecondsOrOff = 3600.0
    volatile_ttl: SecondsOrOff = 1.0


class Postfix(Section):
    """[postfix]: the main.cf parameters of these names, as Postfix has them."""

    mail_version: MailVersion = ""
    config_directory: str = "/etc/postfix"
    recipient_delimiter: str = ""
    owner_request_special: bool = True
    double_bounce_sender: str = "double-bounce"
    propagate_unmatched_extensions: list[str] = ["canonical", "virtual"]
    myhostname: str = ""
    mydomain: str = ""
    myorigin: str = ""
    mydestination: list[str] = []
    inet_interfaces: list[str] = []
    proxy_interfaces: list[str] = []
    parent_domain_matches_subdomains: list[str] = [
        "debug_peer_list",
        "fast_flush_domains",
        "mynetworks",
        "permit_mx_backup_networks",
        "qmqpd_authorized_clients",
        "relay_domains",
        "smtpd_access_maps",
    ]
    smtputf8_enable: bool = True
    append_at_myorigin: bool = True
    append_dot_mydomain: bool = False
    swap_bangpath: bool = True
    allow_percent_hack: bool = True
    resolve_dequoted_address: bool = True
    virtual_mailbox_base: str = ""
    virtual_minimum_uid: int = Field(default=100, ge=0)


class Listen(Section):
    """[listen]"""

    allow_networks: list[Network] = []


class Socketmap(Unix):
    """[socketmap]"""

    inet: Inet = "127.0.0.1:17020"


class Control(Unix):
    """[control]"""

    unix: UnixPath = "/run/mailmaps/control.sock"


class Metrics(Section):
    """[metrics]"""

    inet: Inet = "127.0.0.1:17021"


PLAIN_SCHEMES = ("PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC")


class Auth(Section):
    """[auth]: who may log in, whichever door he comes by."""

    backend: Literal["postgresql", "pam"] = "postgresql"
    source: LoginSource = "builtin"
    names: list[Literal["username", "address"]] = Field(default=["username", "address"], min_length=1)
    realm: str = ""
    default_scheme: Scheme = "CRYPT"
    allow_plain: bool = False
    home_base: HomeBase = ""
    threads: int = Field(default=0, ge=0, le=256)
    queue: int = Field(default=200, ge=1)
    remember: SecondsOrOff = 10.0
    connections: int = Field(default=2, ge=1, le=100)
    shared_clients: list[Network] = []
    pam_service: PamService = "mail"
    pam_strip_realm: bool = False
    pam_threads: int = Field(default=8, ge=1, le=256)

    @model_validator(mode="after")
    def _plain_text_counts(self) -> Auth:
        if self.default_scheme.upper() in PLAIN_SCHEMES and not self.allow_plain:
            raise ValueError("default_scheme is plain text, which counts with allow_plain = true only")
        return self


class LoginUnix(Unix):
    """A unix socket that passwords come by: nobody may connect whom mode, owner or group do not name."""

    @model_validator(mode="after")
    def _not_for_everybody(self) -> LoginUnix:
        if int(self.mode, 8) & 0o002:
            raise ValueError(
                "mode lets everybody connect to a socket that passwords come by; name a group, such as 0660"
            )
        return self


class Login(LoginUnix):
    """[login]"""


class DovecotAuth(LoginUnix):
    """[dovecot_auth]"""

    inet: Inet = ""


class Saslauthd(LoginUnix):
    """[saslauthd]"""


class Table(Section):
    """[tables.NAME]; the defaults of `tcp` and `parameter` depend on the table."""

    parameter: Parameter = ""
    sources: list[SourceName] = Field(default=["builtin"], min_length=1)
    depends_on: list[RelationName] = []
    tcp: Inet = ""


def _default_tables() -> dict[str, Table]:
    return {
        kind.name: Table(parameter=kind.name, tcp=f"127.0.0.1:{kind.tcp_port}")
        for kind in KINDS.values()
        if kind.tcp_port
    }


class Settings(Section):
    """All of mailmaps.toml."""

    delivery: Delivery = "virtual"
    builtin_tables: bool = True
    log: Log = Log()
    database: Database = Database()
    mirror: Mirror = Mirror()
    filemaps: Filemaps = Filemaps()
    cache: Cache = Cache()
    listen: Listen = Listen()
    socketmap: Socketmap = Socketmap()
    control: Control = Control()
    metrics: Metrics = Metrics()
    auth: Auth = Auth()
    login: Login = Login()
    dovecot_auth: DovecotAuth = DovecotAuth()
    saslauthd: Saslauthd = Saslauthd()
    policy: Policy = Policy()
    senders: Senders = Senders()
    limits: Limits = Limits()
    notices: Notices = Notices()
    tables: dict[TableName, Table] = Field(default_factory=_default_tables)
    postfix: Postfix = Postfix()

    @model_validator(mode="before")
    @classmethod
    def _add_default_tables(cls, given: object) -> object:
        """A default table keeps its endpoint unless told otherwise; every table learns its parameter."""
        if not isinstance(given, dict) or not isinstance(given.get("tables", {}), dict):
            return given
        tables = given.get("tables", {})
        defaults = {
            name: table.model_dump(include={"tcp", "parameter"}) for name, table in _default_tables().items()
        }
        merged = {
            name: defaults.get(name, {"parameter": name}) | table if isinstance(table, dict) else table
            for name, table in tables.items()
        }
        if given.get("builtin_tables", True):
            merged = defaults | merged
        return given | {"tables": merged}

    @model_validator(mode="after")
    def _builtin_views_are_there(self) -> Settings:
        builtin = _default_tables()
        for name, table in self.tables.items():
            if "builtin" in table.sources and name not in builtin:
                raise ValueError(f"tables.{name}.sources: there is no builtin view for this table")
        return self

    @model_validator(mode="after")
    def _mailbox_folders_have_a_base(self) -> Settings:
        if self.filemaps.maildirs and not self.postfix.virtual_mailbox_base.startswith("/"):
            raise ValueError("filemaps.maildirs needs an absolute path in postfix.virtual_mailbox_base")
        return self

    @model_validator(mode="after")
    def _endpoints_make_sense(self) -> Settings:
        seen: dict[str, str] = {}
        for path, inet in self.inet_endpoints().items():
            if inet in seen:
                raise ValueError(f"{path} and {seen[inet]} are the same endpoint")
            seen[inet] = path
            if not self.listen.allow_networks and not ipaddress.ip_address(split_inet(inet)[0]).is_loopback:
                raise ValueError(
                    f"{path} is not a loopback address; say in listen.allow_networks who may ask there"
                )
        return self

    def endpoints(self) -> tuple[object, ...]:
        """Everything that is bound at the start and stays until the end."""
        return (
            self.inet_endpoints(),
            self.socketmap,
            self.control,
            self.listen,
            self.login,
            self.dovecot_auth,
            self.saslauthd,
            self.policy,
        )

    @property
    def has_logins(self) -> bool:
        """Whether any door for logins is open."""
        return bool(
            self.login.unix or self.dovecot_auth.unix or self.dovecot_auth.inet or self.saslauthd.unix
        )

    def inet_endpoints(self) -> dict[str, str]:
        """The TCP endpoints in use, by the path of the setting that names them."""
        endpoints = {f"tables.{name}.tcp": table.tcp for name, table in self.tables.items()}
        endpoints["socketmap.inet"] = self.socketmap.inet
        endpoints["dovecot_auth.inet"] = self.dovecot_auth.inet
        endpoints["policy.inet"] = self.policy.inet
        endpoints["metrics.inet"] = self.metrics.inet
        return {path: inet for path, inet in endpoints.items() if inet}
