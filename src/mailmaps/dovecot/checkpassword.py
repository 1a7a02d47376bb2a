"""Dovecot 2.3's checkpassword program: hands a login, or a lookup, to `mailmaps serve`.

    passdb { driver = checkpassword   args = /usr/bin/python3 -IS /usr/lib/mailmaps/checkpassword.py }

Contract: "user NUL password NUL NUL" is read from fd 3 to its end, always (else Dovecot's write fails, and
with it that login); the daemon is asked over its unix socket; on OK the program in argv[1] goes on with USER,
HOME and the userdb fields in the environment. Where that is Dovecot's own, checkpassword-reply, we write its
answer to fd 4 ourselves. Otherwise the exit code tells (db-checkpassword.c:115-190 of 2.3.19.1):

    login (AUTHORIZED unset): 1 rejected, 111 cannot say      lookup (AUTHORIZED=1): 3 unknown, 111 cannot say
    2: run the wrong way (no fd 3, no program to go on with), which Dovecot takes for 111 too

Python itself ends with 1 when a program fails, and 1 is "wrong password": so all of it runs inside a try, and
the syntax is that of any python3, since Dovecot's need not be ours. Nothing is imported but what is built in:
one import costs more than the question. No password is ever in the environment, argv or a message.
"""

import posix
import sys
import time

ACCEPTED, REJECTED, MISUSE, UNKNOWN, CANNOT_SAY = 0, 1, 2, 3, 111
ACCEPTED_LOOKUP = 2
DEFAULT_SOCKET = b"/run/mailmaps/login.sock"
PATIENCE = 9.0  # seconds; the daemon answers within 8, or is not there
MOST = 16384  # bytes of a reply, as of a request

# Dovecot's tab-escape (strescape.c). 0x01 itself is the first to be escaped and the last to be undone.
ESCAPES = ((b"\1", b"\0011"), (b"\0", b"\0010"), (b"\t", b"\001t"), (b"\r", b"\001r"), (b"\n", b"\001n"))


class CannotSay(Exception):
    """Why there is no answer, in words that may be logged."""


def main() -> int:
    """Return the exit code, unless it goes on as the program in argv[1]. Raises `CannotSay`, `OSError`."""
    try:
        given = read_all(3)
    except OSError as error:
        return say(MISUSE, "fd 3: " + str(error.strerror))
    if len(sys.argv) < 2:
        return say(MISUSE, "no program to go on with")
    lookup = posix.environ.get(b"AUTHORIZED") == b"1"
    reply = ask(request(given, lookup))
    if reply[0] == b"OK":
        environment = accepted(reply[1:], lookup)
        if sys.argv[1].endswith("/checkpassword-reply"):
            return answer(environment, lookup)
        try:
            posix.execve(sys.argv[1], sys.argv[1:], environment)
        except OSError as error:
            raise CannotSay("cannot run " + sys.argv[1] + ": " + str(error.strerror)) from None
    if reply[0] == (b"UNKNOWN" if lookup else b"NO"):
        return UNKNOWN if lookup else REJECTED
    if reply[0] == b"LATER":
        raise CannotSay("mailmaps cannot say now: " + b" ".join(reply[1:]).decode("ascii", "replace"))
    raise CannotSay("mailmaps gave an answer that is none")


def read_all(descriptor: int) -> bytes:
    """All that comes until the other side closes. Raises `OSError`."""
    parts = [posix.read(descriptor, 4096)]
    while parts[-1]:
        parts.append(posix.read(descriptor, 4096))
    posix.close(descriptor)
    return b"".join(parts)


def request(given: bytes, lookup: bool) -> bytes:
    """The line for the daemon. Raises `CannotSay`."""
    environ = posix.environ
    if environ.get(b"CREDENTIALS_LOOKUP") == b"1" and environ.get(b"SCHEME"):
        raise CannotSay(
            "CRAM-MD5 and its like want the stored password; auth_mechanisms is to be: plain login"
        )
    parts = given.split(b"\0")
    if len(parts) < 3:
        raise CannotSay("fd 3 brought no user and password")
    line = b"LOOKUP" if lookup else b"LOGIN"
    for name, value in (
        (b"user", parts[0]),
        (b"password", b"" if lookup else parts[1]),
        (b"service", environ.get(b"SERVICE", b"")),
        (b"rip", environ.get(b"TCPREMOTEIP") or environ.get(b"REMOTE_IP", b"")),
        (b"lip", environ.get(b"TCPLOCALIP") or environ.get(b"LOCAL_IP", b"")),
        (b"dovecot", b"2.3"),
    ):
        for plain, escaped in ESCAPES:
            value = value.replace(plain, escaped)
        if value or (name == b"password" and not lookup):
            line += b"\t" + name + b"=" + value
    return line + b"\n"


def ask(line: bytes) -> "list[bytes]":
    """The words of the daemon's answer, still escaped. Raises `CannotSay`, `OSError`."""
    import _socket  # here, since in some Pythons it is a file, which may be missing

    deadline = time.monotonic() + PATIENCE
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    link.settimeout(PATIENCE)
    link.connect(socket_path())
    link.sendall(line)
    reply = b""
    while b"\n" not in reply:
        link.settimeout(max(deadline - time.monotonic(), 0.001))
        part = link.recv(MOST)
        if not part or len(reply) > MOST:
            raise CannotSay("mailmaps broke off")
        reply += part
    if reply.find(b"\n") != len(reply) - 1:
        raise CannotSay("mailmaps gave more than one answer")
    return reply[:-1].split(b"\t")


def socket_path() -> bytes:
    """Where the daemon listens: by the environment, by the file beside this one, or as usual."""
    named = posix.environ.get(b"MAILMAPS_LOGIN_SOCKET")
    if named:
        return named
    try:
        with open(__file__.rpartition("/")[0] + "/login-socket", "rb") as file:  # noqa: PTH123  # no imports
            return file.readline().strip()
    except FileNotFoundError:
        return DEFAULT_SOCKET


def accepted(fields: "list[bytes]", lookup: bool) -> "dict[bytes, bytes]":
    """The environment for checkpassword-reply. Raises `CannotSay`."""
    environment = {**posix.environ, b"USER": b"", b"HOME": b""}
    extra = []
    for field in fields:
        name, _, value = field.partition(b"=")
        for plain, escaped in reversed(ESCAPES):
            value = value.replace(escaped, plain)
        # A TAB in USER or HOME would make checkpassword-reply end with 1, which is "wrong password".
        if not name or b" " in name or b"\0" in value or b"\t" in value or b"\n" in value:
            raise CannotSay("mailmaps gave a field that the environment cannot hold")
        if name in (b"user", b"home"):
            environment[name.upper()] = value
        if name != b"home" and (name != b"user" or lookup):  # a lookup renames the user by userdb_user
            extra.append(b"userdb_" + name)
            environment[extra[-1]] = value
    if not environment[b"USER"]:
        raise CannotSay("mailmaps named no user")
    if b"userdb_uid" not in extra or b"userdb_gid" not in extra:
        # checkpassword-reply would fill in its own, and mail would be delivered as Dovecot's user.
        raise CannotSay("mailmaps gave no uid and gid")
    if not environment[b"HOME"]:
        del environment[b"HOME"]
    environment[b"EXTRA"] = b" ".join(extra)
    if lookup:
        environment[b"AUTHORIZED"] = b"2"
    return environment


def answer(environment: "dict[bytes, bytes]", lookup: bool) -> int:
    """Write to fd 4 what Dovecot's checkpassword-reply would: another exec is a seventh of a login.

    One line of name=value, tab-escaped (checkpassword-reply.c, db-checkpassword.c:298).
    """
    fields = [(b"user", environment[b"USER"]), (b"userdb_home", environment.get(b"HOME", b""))]
    fields += [(name, environment[name]) for name in environment[b"EXTRA"].split(b" ")]
    parts = []
    for name, value in fields:
        for plain, escaped in ESCAPES:
            value = value.replace(plain, escaped)
        if value:
            parts.append(name + b"=" + value)
    posix.write(4, b"\t".join(parts))
    return ACCEPTED_LOOKUP if lookup else ACCEPTED


def say(code: int, why: str) -> int:
    """Write one line to stderr, which Dovecot logs, and return `code`."""
    posix.write(2, b"mailmaps checkpassword: " + why.encode("ascii", "replace") + b"\n")
    return code


if __name__ == "__main__":
    CODE = CANNOT_SAY
    try:
        CODE = main()
    except CannotSay as error:
        say(CODE, str(error))
    except OSError as error:
        say(CODE, "no answer from mailmaps: " + str(error.strerror or error))
    except BaseException as error:  # MemoryError, a fault of ours: no text, for it may hold anything
        say(CODE, type(error).__name__)
    finally:
        posix._exit(CODE)  # in place of whatever else Python would end with
