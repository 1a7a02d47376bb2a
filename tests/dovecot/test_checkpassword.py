"""checkpassword.py by itself: a script in place of checkpassword-reply, a stub in place of the daemon.

Every kind of call is met with every answer and every failure there is. Each run is looked at: what came by fd
3 is read to its end, and the password is neither in a message nor in the environment handed on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from tests.system.dovecot import installed_version
from tests.system.login_stub import LoginStub, accepted

SCRIPT = Path(__file__).parent.parent.parent / "src" / "mailmaps" / "dovecot" / "checkpassword.py"

LOGIN: dict[str, str] = {}
LOOKUP = {"AUTHORIZED": "1"}
BARE_CREDENTIALS = {"AUTHORIZED": "1", "CREDENTIALS_LOOKUP": "1", "SCHEME": ""}
CRAM_MD5 = {"AUTHORIZED": "1", "CREDENTIALS_LOOKUP": "1", "SCHEME": "CRAM-MD5"}
KINDS = {"login": LOGIN, "lookup": LOOKUP, "bare credentials": BARE_CREDENTIALS}

GIVEN = {
    "SERVICE": "imap",
    "TCPREMOTEIP": "192.0.2.1",
    "TCPLOCALIP": "192.0.2.2",
    "ORIG_UID": "0",
    "HOME": "/the/auth/process's",
    "userdb_mail": "somebody else's",
}
OK = accepted("jan@example.org", uid=5001, gid=5002, home="/mail/jan/home", mail="maildir:/mail/jan")
SECRET = "s3cret-Ünder"

# checkpassword-reply ends with 2 for a lookup (AUTHORIZED=2), else with 0.
REPLY = """#!/bin/sh
env >"$REPLY_FOLDER/environment"
echo "$@" >"$REPLY_FOLDER/arguments"
[ "$AUTHORIZED" != 2 ] || exit 2
"""


class Run(NamedTuple):
    code: int
    said: str
    environment: dict[str, str] | None  # what the program in argv[1] was given; None: it was not run


class Program:
    """checkpassword.py in a folder of its own, and the stub it asks."""

    def __init__(self, folder: Path, stub: LoginStub) -> None:
        self.folder = folder
        self.stub = stub
        self.script = Path(shutil.copy(SCRIPT, folder))
        self.reply = folder / "reply"
        self.reply.write_text(REPLY)
        self.reply.chmod(0o755)
        (folder / "login-socket").write_text(f"{stub.path}\n")

    async def run(
        self, kind: dict[str, str], answer: bytes | None = None, password: str = SECRET, **more: str
    ) -> Run:
        """Run it as Dovecot does, for jan; `answer` is the daemon's to any question."""
        if answer is not None:
            self.stub.otherwise = answer
        given = b"jan\0" + (b"" if kind else password.encode()) + b"\0\0"
        return await self.run_with(given, {**GIVEN, **kind, **more}, [str(self.reply), "word"], password)

    async def run_with(
        self, given: bytes, env: dict[str, str], program: list[str], password: str = SECRET
    ) -> Run:
        words = [
            "sh",
            "-c",
            f'exec "$@" 3<&0 </dev/null 4>{self.folder}/fd4',
            "sh",
            sys.executable,
            "-IS",
            str(self.script),
            *program,
        ]
        return await asyncio.to_thread(self._run, words, given, env, password)

    def _run(self, words: list[str], given: bytes, env: dict[str, str], password: str) -> Run:
        found = self.folder / "environment"
        found.unlink(missing_ok=True)
        environment = {"PATH": "/usr/bin:/bin", "REPLY_FOLDER": str(self.folder), **env}
        said = self.folder / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=stderr, env=environment)
            assert process.stdin is not None
            process.stdin.write(given)  # a BrokenPipeError, should it not be read
            process.stdin.close()
            code = process.wait(60)
        text = said.read_text(errors="replace")
        passed = found.read_bytes().decode(errors="surrogateescape") if found.exists() else None
        if password:
            assert password not in text
            assert password not in (passed or "")
        assert text.count("\n") <= 1
        if passed is None:
            return Run(code, text, None)
        return Run(code, text, dict(line.partition("=")[::2] for line in passed.split("\n") if line))


@pytest_asyncio.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    async with LoginStub(tmp_path / "login.sock") as stub:
        yield Program(tmp_path, stub)


async def test_a_login_that_is_accepted(program: Program) -> None:
    run = await program.run(LOGIN, OK)
    assert run.code == 0
    assert run.said == ""
    assert run.environment is not None
    assert "AUTHORIZED" not in run.environment
    expected = {
        "USER": "jan@example.org",
        "HOME": "/mail/jan/home",
        "EXTRA": "userdb_uid userdb_gid userdb_mail",
        "userdb_uid": "5001",
        "userdb_gid": "5002",
        "userdb_mail": "maildir:/mail/jan",
        "ORIG_UID": "0",
    }
    assert {name: run.environment[name] for name in expected} == expected
    assert (program.folder / "arguments").read_text() == "word\n"
    assert program.stub.asked == [
        {
            "kind": "LOGIN",
            "user": "jan",
            "password": SECRET,
            "service": "imap",
            "rip": "192.0.2.1",
            "lip": "192.0.2.2",
            "dovecot": "2.3",
        }
    ]


DOVECOTS = Path("/usr/lib/dovecot/checkpassword-reply")


@pytest.mark.postfix
@pytest.mark.skipif(installed_version().startswith("2.4"), reason="Dovecot 2.4 has no checkpassword")
@pytest.mark.parametrize(
    "kind", [LOGIN, LOOKUP, BARE_CREDENTIALS], ids=["login", "lookup", "bare credentials"]
)
@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 5001, "gid": 5002, "home": "/mail/jan/home", "mail": "maildir:/mail/jan"},
        {"uid": 5001, "gid": 5002},
        {"uid": 5001, "gid": 5002, "home": "/a b", "mail": "maildir:/a\x01b", "quota_rule": "*:storage=0M"},
    ],
)
async def test_in_place_of_dovecots_program_it_answers_the_same(
    program: Program, kind: dict[str, str], fields: dict[str, object]
) -> None:
    """Once through the real checkpassword-reply under another name, once by itself."""
    program.stub.otherwise = accepted("jan", **fields)
    (program.folder / "other-name").symlink_to(DOVECOTS)
    given = b"jan\0" + (b"" if kind else SECRET.encode()) + b"\0\0"
    env = {**GIVEN, **kind, "ORIG_UID": str(os.getuid())}
    found = []
    for path in (program.folder / "other-name", DOVECOTS):
        run = await program.run_with(given, env, [str(path)])
        fields_written = (program.folder / "fd4").read_bytes().removesuffix(b"\t").split(b"\t")
        found.append((run.code, sorted(fields_written)))
    assert found[0] == found[1]
    assert found[0][0] == (2 if kind else 0)
    assert b"user=jan" in found[0][1]


async def test_without_fd_4_it_is_cannot_say(program: Program) -> None:
    program.stub.otherwise = OK
    words = ["sh", "-c", 'exec "$@" 3<&0 </dev/null 4>&-', "sh", sys.executable, "-IS", str(program.script)]
    given = b"jan\0pw\0\0"
    run = await asyncio.to_thread(program._run, [*words, "/x/checkpassword-reply"], given, dict(GIVEN), "pw")
    assert run.code == 111


@pytest.mark.parametrize("kind", [LOOKUP, BARE_CREDENTIALS], ids=["lookup", "bare credentials"])
async def test_a_lookup_that_is_answered(program: Program, kind: dict[str, str]) -> None:
    run = await program.run(kind, OK)
    assert run.code == 2
    assert run.environment is not None
    assert run.environment["AUTHORIZED"] == "2"
    assert run.environment["USER"] == run.environment["userdb_user"] == "jan@example.org"
    assert not any("password" in name for name in run.environment)
    [question] = program.stub.asked
    assert question["kind"] == "LOOKUP"
    assert "password" not in question


async def test_home_is_not_the_auth_process_s(program: Program) -> None:
    run = await program.run(LOGIN, accepted("jan", uid=1, gid=1))
    assert run.environment is not None
    assert "HOME" not in run.environment
    assert run.environment["EXTRA"] == "userdb_uid userdb_gid"


async def test_fields_are_unescaped(program: Program) -> None:
    run = await program.run(LOGIN, accepted("jan", uid=1, gid=1, home="/a\1tb\1", mail="r\r =\1n"))
    assert run.environment is not None
    assert run.environment["HOME"] == "/a\1tb\1"
    assert run.environment["userdb_mail"] == "r\r =\1n"


ANSWERS = {"login": {b"NO": 1}, "lookup": {b"UNKNOWN": 3}, "bare credentials": {b"UNKNOWN": 3}}


@pytest.mark.parametrize("answer", [b"NO", b"UNKNOWN", b"LATER\tno database", b"LATER"])
@pytest.mark.parametrize("kind", KINDS)
async def test_answers_that_are_not_ok(program: Program, kind: str, answer: bytes) -> None:
    run = await program.run(KINDS[kind], answer + b"\n")
    code = ANSWERS[kind].get(answer, 111)
    assert run.code == code
    assert run.environment is None
    assert (run.said == "") == (code != 111)


async def test_the_daemon_s_reason_is_logged(program: Program) -> None:
    run = await program.run(LOGIN, b"LATER\tno database\n")
    assert run.said == "mailmaps checkpassword: mailmaps cannot say now: no database\n"


FAILURES = {
    "closes": b"",
    "half a word": b"O",
    "half a line": OK.removesuffix(b"\n"),
    "half a no": b"NO",
    "garbage": b"\xff\xfe\x00\n",
    "an empty line": b"\n",
    "no such word": b"NOPE\n",
    "two answers": OK + OK,
    "no, and more": b"NO\tmore\nNO\n",
    "unknown, and more": b"UNKNOWN\tmore\nUNKNOWN\n",
    "an endless line": b"OK\tuser=" + b"x" * 100_000,
    "no user": b"OK\n",
    "an empty user": b"OK\tuser=\tuid=1\tgid=1\n",
    "no uid": b"OK\tuser=jan\tgid=1\n",
    "no gid": b"OK\tuser=jan\tuid=1\n",
    "a TAB in user": b"OK\tuser=j\1tan\tuid=1\tgid=1\n",
    "a NUL in user": b"OK\tuser=j\0010an\tuid=1\tgid=1\n",
    "a LF in home": b"OK\tuser=jan\tuid=1\tgid=1\thome=/x\1n\n",
    "a blank in a name": b"OK\tuser=jan\tuid=1\tgid=1\tqu ota=1\n",
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", KINDS)
async def test_nonsense_is_cannot_say(program: Program, kind: str, failure: str) -> None:
    run = await program.run(KINDS[kind], FAILURES[failure])
    assert run.code == 111
    assert run.environment is None
    assert run.said.startswith("mailmaps checkpassword: ")


@pytest.mark.parametrize("kind", KINDS)
async def test_no_socket_is_cannot_say(program: Program, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    for path in ("nowhere", "a-file", "x" * 200):
        run = await program.run(KINDS[kind], OK, MAILMAPS_LOGIN_SOCKET=str(tmp_path / path))
        assert run.code == 111
        assert run.said.startswith("mailmaps checkpassword: no answer from mailmaps: ")
    assert program.stub.asked == []


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_does_not_come_is_cannot_say(program: Program, kind: str) -> None:
    text = SCRIPT.read_text().replace("PATIENCE = 9.0", "PATIENCE = 0.2")
    assert text != SCRIPT.read_text()
    program.script.write_text(text)
    listening = program.folder / "silent.sock"
    silent = await asyncio.start_unix_server(_say_nothing, listening)
    async with silent:
        run = await program.run(KINDS[kind], MAILMAPS_LOGIN_SOCKET=str(listening))
    assert run.code == 111
    assert "timed out" in run.said


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_of_its_own_is_cannot_say(program: Program, kind: str) -> None:
    """Python itself would end with 1, which is "wrong password"."""
    text = SCRIPT.read_text().replace("given.split", "given[b'x'].split")
    assert text != SCRIPT.read_text()
    program.script.write_text(text)
    run = await program.run(KINDS[kind], OK)
    assert run.code == 111
    assert run.said == "mailmaps checkpassword: TypeError\n"


async def test_a_stored_password_is_not_given(program: Program) -> None:
    run = await program.run(CRAM_MD5, OK)
    assert run.code == 111
    assert "CRAM-MD5" in run.said
    assert program.stub.asked == []


ODD = ["t\tab", "l\nf", "c\rr", "\1", "\1t\1\1n", "ünïcödé", " blanks ", "=", "x" * 504, ""]


@pytest.mark.parametrize("password", ODD, ids=repr)
async def test_odd_passwords_arrive_as_they_are(program: Program, password: str) -> None:
    given = b"jan\0" + password.encode() + b"\0\0"
    program.stub.otherwise = b"NO\n"
    run = await program.run_with(given, GIVEN, [str(program.reply)], password="")
    assert run.code == 1
    assert program.stub.asked[0]["password"] == password
    assert program.stub.asked[0]["user"] == "jan"


async def test_bytes_that_are_no_utf8_pass(program: Program) -> None:
    program.stub.otherwise = b"OK\tuser=j\xe4n\tuid=1\tgid=1\n"
    run = await program.run_with(b"j\xe4n\0p\xffw\0\0", GIVEN, [str(program.reply)])
    assert run.code == 0
    assert program.stub.asked[0]["password"] == "p\udcffw"


@pytest.mark.parametrize("given", [b"", b"jan", b"jan\0", b"jan\0half of a passw"])
async def test_a_broken_hand_over_is_cannot_say(program: Program, given: bytes) -> None:
    run = await program.run_with(given, GIVEN, [str(program.reply)], "half of a passw")
    assert run.code == 111
    assert program.stub.asked == []


async def test_run_the_wrong_way(program: Program) -> None:
    assert (await program.run_with(b"jan\0x\0\0", GIVEN, [])).code == 2
    words = [
        "sh",
        "-c",
        'exec "$@" 3<&-',
        "sh",
        sys.executable,
        "-IS",
        str(program.script),
        str(program.reply),
    ]
    done = await asyncio.to_thread(
        subprocess.run, words, capture_output=True, check=False, env=GIVEN, timeout=60
    )
    assert done.returncode == 2
    assert b"fd 3" in done.stderr


async def test_a_program_that_cannot_be_run_is_cannot_say(program: Program) -> None:
    program.stub.otherwise = OK
    run = await program.run_with(b"jan\0x\0\0", GIVEN, [str(program.folder / "none")])
    assert run.code == 111


@pytest.mark.parametrize("kind", [LOGIN, LOOKUP, CRAM_MD5], ids=["login", "lookup", "CRAM-MD5"])
async def test_fd_3_is_read_to_its_end(program: Program, kind: dict[str, str]) -> None:
    """More than a pipe holds: not to read it would be a BrokenPipeError here, and a failed login there."""
    program.stub.otherwise = b"LATER\n"
    given = b"jan\0secret\0\0" + b"x" * 200_000
    run = await program.run_with(given, GIVEN | kind, [str(program.reply)])
    assert run.code == 111
    assert (await program.run_with(given, GIVEN | kind, [])).code == 2


async def test_the_environment_names_the_socket_before_the_file_does(program: Program) -> None:
    other = program.folder / "other.sock"
    async with LoginStub(other) as stub:
        stub.otherwise = b"NO\n"
        assert (await program.run(LOGIN, OK, MAILMAPS_LOGIN_SOCKET=str(other))).code == 1
        assert len(stub.asked) == 1
    assert program.stub.asked == []


async def test_the_usual_place(program: Program) -> None:
    (program.folder / "login-socket").unlink()
    text = SCRIPT.read_text().replace('b"/run/mailmaps/login.sock"', repr(str(program.stub.path).encode()))
    assert text != SCRIPT.read_text()
    program.script.write_text(text)
    assert (await program.run(LOGIN, b"NO\n")).code == 1


async def test_nothing_is_imported_that_python_does_not_have_built_in(program: Program) -> None:
    """Each import of a file costs more than the question does."""
    program.stub.otherwise = b"NO\n"
    words = ["sh", "-c", 'exec "$@" 3</dev/stdin', "sh", sys.executable, "-IS", "-v"]
    imported = []
    for last in ([str(program.script), str(program.reply)], ["-c", ""]):
        done = await asyncio.to_thread(
            subprocess.run, [*words, *last], input=b"jan\0x\0\0", capture_output=True, check=False, timeout=60
        )
        lines = done.stderr.decode().splitlines()
        imported.append({line.split()[1] for line in lines if line.startswith("import ")})
    assert len(program.stub.asked) == 1
    # Debian's Python has _socket built in; others have it as a file, which is C.
    assert imported[0] - imported[1] <= {"'_socket'"}


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()
