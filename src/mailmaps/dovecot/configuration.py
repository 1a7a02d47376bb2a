"""The text of a complete dovecot.conf for a site, in the dialect of 2.3 or of 2.4.

Contract: what is printed can be Dovecot's only configuration file; whatever mailmaps needs otherwise than
Dovecot's default is in it, each with its reason. The texts are dovecot-2.3.conf and dovecot-2.4.conf beside
this module, with `$name` where a site decides (`$$` is a dollar sign); the dialects share hardly a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from string import Template

DOORS = {"2.3": ("checkpassword", "lua"), "2.4": ("lua",)}
"""By dialect; the first is the default. 2.4 has no checkpassword (removed by b9eab89e68)."""

LIBRARY = "/usr/lib/mailmaps"
"""Where `mailmaps dovecot-files` puts what Dovecot runs."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where Dovecot takes mail by LMTP: a unix socket, or an address with its port."""

    unix: str = ""
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """What a configuration depends on.

    `login_unix` is the daemon's socket; `extra_group` a group that Dovecot's processes need to connect there,
    empty when they are the owner or in its group anyway. `lmtp` is None when Postfix delivers otherwise.
    """

    base: str
    minimum_uid: int
    login_unix: str
    extra_group: str
    lmtp: Listener | None


@dataclass(frozen=True, slots=True)
class Version:
    """A Dovecot: its dialect ("2.3", "2.4") and what a 2.4 calls itself in dovecot_config_version.

    Each 2.4 takes its own number and older ones (config-parser.c, config_version_find), and 2.4.1 refuses
    2.4.2, so "2.4" means 2.4.0, which all of them take.
    """

    dialect: str
    number: str

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read "2.3", "2.4", "2.3.19.1", "2.4.1". Raises `ValueError` for any other."""
        found = re.fullmatch(r"(2\.[34])(\.\d+)?(\.\d+)?", text)
        if found is None:
            raise ValueError('not a Dovecot that is known here; known are "2.3", "2.4", and such as "2.4.1"')
        return cls(found[1], found[1] + (found[2] or ".0"))


def text(site: Site, version: Version, door: str) -> str:
    """The whole file. `door` is one of `DOORS` for this dialect."""
    if door not in DOORS[version.dialect]:
        raise ValueError(f"Dovecot {version.dialect} has no {door}")
    template = Template(files(__package__).joinpath(f"dovecot-{version.dialect}.conf").read_text())
    old = version.dialect == "2.3"
    return template.substitute(
        version=version.number,
        base=site.base,
        uid=str(max(1, site.minimum_uid)),
        login_unix=site.login_unix,
        lmtp=" lmtp" if site.lmtp else "",
        lmtp_enabled="yes" if site.lmtp else "no",
        listener=_listener(site.lmtp, "address" if old else "listen"),
        doors=_checkpassword(site) if door == "checkpassword" else _lua(site, old=old),
        packages="dovecot-imapd dovecot-lmtpd" + (" dovecot-auth-lua lua-socket" if door == "lua" else ""),
    )


def _listener(lmtp: Listener | None, address: str) -> str:
    """The LMTP service."""
    if lmtp is None:
        return '# delivery in mailmaps.toml is not "lmtp:...", so there is no listener for Postfix.'
    if lmtp.unix:
        inner = [f"unix_listener {lmtp.unix} {{", "  mode = 0600", "  user = postfix", "  group = postfix"]
    else:
        inner = ["inet_listener lmtp {", f"  {address} = {lmtp.host}", f"  port = {lmtp.port}"]
    return _block("service lmtp {", *inner, "}")


def _checkpassword(site: Site) -> str:
    """passdb and userdb by checkpassword.py."""
    arguments = f"args = /usr/bin/python3 -IS {LIBRARY}/checkpassword.py"
    return "\n".join(
        [
            _block("passdb {", "driver = checkpassword", arguments),
            "# A login brings the user's data along; this takes them from there.",
            _block("userdb {", "driver = prefetch"),
            "# Without a login (LMTP, doveadm) the program is asked for them.",
            _block("userdb {", "driver = checkpassword", arguments),
            f"# The program runs as the user of this service, dovecot, and asks at {site.login_unix}.",
            _groups("auth", site),
        ]
    )


def _lua(site: Site, *, old: bool) -> str:
    """passdb and userdb by mailmaps.lua."""
    file = f"{LIBRARY}/mailmaps.lua"
    if old:
        asked = ("driver = lua", f"args = file={file} blocking=yes")
        blocks = [
            _block("passdb {", *asked),
            _block("userdb {", "driver = prefetch"),
            _block("userdb {", *asked),
        ]
    else:
        blocks = [_block("passdb lua {", f"lua_file = {file}"), "userdb prefetch {\n}"]
        blocks.append(_block("userdb lua {", f"lua_file = {file}"))
    return "\n".join(
        [
            blocks[0],
            "# A login brings the user's data along; this takes them from there.",
            blocks[1],
            "# Without a login (LMTP, doveadm) the script is asked for them.",
            blocks[2],
            f"# The script runs in these processes and asks at {site.login_unix}. By default they are root,",
            "# which only PAM and /etc/shadow need.",
            _groups("auth-worker", site, "user = dovecot"),
        ]
    )


def _groups(service: str, site: Site, *lines: str) -> str:
    """A service whose processes may connect to the daemon."""
    if site.extra_group:
        lines = (*lines, f"extra_groups = {site.extra_group}")
    if lines:
        return _block(f"service {service} {{", *lines)
    return f"# The socket is dovecot's or its group's, so service {service} needs nothing more."


def _block(head: str, *lines: str) -> str:
    return "\n".join([head, *(f"  {line}" for line in lines), "}"])
