"""The steps, in order: `python3 -m tests.installed [STEP...]` in the booted tree, as root.

setup, mail, doctor, prometheus, load, sockets, failure, upgrade, back, uninstall. The first thing that is not
as promised ends it (exit code 1).
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import quote

from tests.installed.load import Load, Question
from tests.installed.machine import PROJECT, Failed, block, check, eventually, get, quiet, rcpt, run

# Where README.md has the three commands.
MARKER = "test-install: the commands of a new site"

DOMAIN = "example.test"
USER = f"jan@{DOMAIN}"
UNKNOWN = f"nobody@{DOMAIN}"

# Warnings of the doctor that are right in this tree.
RIGHT_WARNINGS: tuple[str, ...] = ()

MAIN_CF = Path("/etc/postfix/main.cf")
MASTER_CF = Path("/etc/postfix/master.cf")
KEPT = Path("/root/kept")
SETTINGS = Path("/etc/mailmaps/mailmaps.toml")

# One that no socket unit has: the daemon binds it, below its sandbox.
LOGIN = "/run/mailmaps/login.sock"

METRICS = "http://127.0.0.1:17021"
PROMETHEUS = "http://127.0.0.1:9090"
JOB = """
  - job_name: mailmaps
    scrape_interval: 2s
    static_configs:
      - targets: ['127.0.0.1:17021']
"""

# Clients at a time, each with a connection to each of the four ports; a small smtpd(8) site has as many.
CLIENTS = 12

# Seconds of load before and after each reload and restart.
BETWEEN = 2.0

RESTARTS = 3

# Seconds between two questions of a client while the new version is installed.
PAUSE = 0.02

# Who is heard when something is wrong.
NAMES = ("mailmaps", "systemd", "postfix/smtpd", "postfix/virtual", "postfix/cleanup", "postgres")
LOGS = [word for name in NAMES for word in ("-t", name)]

# There is no network in the tree.
LIBRARIES = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels"


def commands() -> list[str]:
    """The three commands, as README.md has them and docs/installing.md too. Raises `Failed`."""
    files = [PROJECT / "README.md", PROJECT / "docs" / "installing.md"]
    found = [(one, block(one, MARKER)) for one in files if MARKER in one.read_text(encoding="utf-8")]
    check(found, f"the commands are those of {' and '.join(file.name for file, _ in found)}")
    lines = [[shlex.split(line, comments=True) for line in block] for _, block in found]
    check(all(one == lines[0] for one in lines), "which say the same")
    return found[0][1]


def setup() -> None:
    """The three commands, with "y" at their questions; run again they change nothing."""
    KEPT.mkdir()
    for file in (MAIN_CF, MASTER_CF):
        (KEPT / file.name).write_bytes(file.read_bytes())
    lines = commands()
    check(len(lines) == 3, "these are three")
    for line in lines:
        run(line, typed="y\n")
    shown = quiet("mailmaps", "--version")
    check("mailmaps" in shown, shown.strip())
    for name in ("database", "auth-database", "write-database", "admin-database"):
        file = Path(f"/etc/mailmaps/{name}-password")
        check(file.stat().st_mode & 0o777 == 0o600 and file.stat().st_uid == 0, f"{file} is root's alone")
    texts = {file: file.read_bytes() for file in (MAIN_CF, MASTER_CF, Path("/etc/mailmaps/mailmaps.toml"))}
    for line in lines:
        run(line)  # nobody to answer a question: there is none
    check(all(file.read_bytes() == text for file, text in texts.items()), "run again, they change nothing")
    for unit in ("mailmaps.service", "mailmaps-filemaps.service"):
        check(quiet("systemctl", "is-active", unit).strip() == "active", f"{unit} is active")
    eventually(lambda: get(f"{METRICS}/readyz")[0] == 200, "/readyz says 200")


def mail() -> None:
    """A domain and an account without SQL; mail to it arrives, mail to nobody is refused."""
    run(f"mailmaps domain add {DOMAIN}")
    run(f"mailmaps account add jan {USER} --password-stdin", typed="a-long-password-of-jan\n")
    run(f"mailmaps forward add postmaster@{DOMAIN} {USER}")
    eventually(lambda: rcpt(USER)[0] == 250, f"smtpd(8) accepts {USER}")
    code, text = rcpt(UNKNOWN)
    check(code == 550, f"smtpd(8) refuses {UNKNOWN} at RCPT: {code} {text}")
    for address, subject in (
        (USER, "to the address"),
        (f"jan+lists@{DOMAIN}", "with an extension"),
        (f"postmaster@{DOMAIN}", "to the postmaster"),
    ):
        run(f"printf 'Subject: {subject}\\n\\nHello.\\n' | sendmail -f root {address}")
        eventually(partial(found, subject), f"mail {subject} is in the Maildir")
    waiting = quiet("postqueue", "-p")
    check("queue is empty" in waiting, "nothing is left in Postfix's queue")


def found(subject: str) -> bool:
    """Whether a message with that subject is in some Maildir."""
    messages = Path("/var/vmail").glob("**/new/*")
    return any(f"Subject: {subject}\n" in one.read_text(errors="replace") for one in messages)


def doctor() -> None:
    """`mailmaps check` has no error, and no warning but those that are right here."""
    shown = run("mailmaps check", codes=(0, 1))
    wrong = [
        line
        for line in shown.splitlines()
        if line.startswith("warning") and not any(re.search(one, line) for one in RIGHT_WARNINGS)
    ]
    check(not wrong, "mailmaps check has nothing to complain about")


def prometheus() -> None:
    """Debian's Prometheus scrapes it, and can be asked."""
    file = Path("/etc/prometheus/prometheus.yml")
    file.write_text(file.read_text() + JOB)
    run("systemctl restart prometheus")
    eventually(lambda: value('up{job="mailmaps"}') == ["1"], 'Prometheus has up{job="mailmaps"} 1')
    _, text = get(f"{METRICS}/metrics")
    names = sorted(
        {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line.startswith("mailmaps_")}
    )
    check(names, f"/metrics has {len(names)} names of mailmaps_...")
    eventually(lambda: value(names[0]), f"Prometheus knows {names[0]}")


def value(query: str) -> list[str]:
    """The values of an instant query (HTTP API of Prometheus, /api/v1/query)."""
    status, text = get(f"{PROMETHEUS}/api/v1/query?query={quote(query)}")
    if status != 200:
        return []
    return [one["value"][1] for one in json.loads(text)["data"]["result"]]


def questions() -> list[Question]:
    """What is known of the site, and what is not, at four ports."""
    return [
        Question(17012, DOMAIN, asked("virtual_mailbox_domains", DOMAIN)),
        Question(17013, USER, asked("virtual_alias_maps", USER)),
        Question(17014, USER, asked("virtual_mailbox_maps", USER)),
        Question(17014, UNKNOWN, asked("virtual_mailbox_maps", UNKNOWN)),
        Question(17017, USER, asked("smtpd_sender_login_maps", USER)),
    ]


def asked(table: str, key: str) -> bytes:
    """The reply that the daemon gives while nothing happens to it."""
    ports = {"virtual_mailbox_domains": 17012, "virtual_alias_maps": 17013, "virtual_mailbox_maps": 17014}
    with socket.create_connection(("127.0.0.1", ports.get(table, 17017)), timeout=30) as connection:
        connection.sendall(f"get {key}\n".encode())
        reply = connection.recv(4096)
    check(reply[:1] in (b"2", b"5"), f"{table} {key}: {reply.decode().strip()}")
    return reply


def load() -> None:
    """Reloads and restarts while twelve clients ask: nobody is refused, nothing wrong, nothing unanswered."""
    with Load(questions(), CLIENTS) as tally:
        time.sleep(BETWEEN)
        for line in (
            "mailmaps reload",
            "systemctl reload mailmaps",
            *["systemctl restart mailmaps"] * RESTARTS,
        ):
            before = tally.answered
            run(line)
            time.sleep(BETWEEN)
            check(tally.answered > before, f"{tally.answered - before} answers meanwhile")
    judge(tally.text(), tally.refused, tally.hung, len(tally.wrong), tally.unanswered)


def judge(text: str, *troubles: int) -> None:
    """Print the tally. Raises `Failed`."""
    check(not any(troubles), text)


def upgrade() -> None:
    """`make install` again and a restart, under some load (pip wants the processors too)."""
    with Load(questions(), CLIENTS, PAUSE) as tally:
        run(f"{LIBRARIES} make --no-print-directory -C {PROJECT} install >/dev/null")
        run("systemctl restart mailmaps mailmaps-filemaps")
        time.sleep(BETWEEN)
    judge(tally.text(), tally.refused, tally.hung, len(tally.wrong), tally.unanswered)
    eventually(lambda: rcpt(USER)[0] == 250, f"smtpd(8) accepts {USER}")


def back() -> None:
    """The way back that `mailmaps setup postfix` prints: main.cf and master.cf are what they were."""
    copies = {
        name: sorted(MAIN_CF.parent.glob(f"{name}.before-*")) for name in (MAIN_CF.name, MASTER_CF.name)
    }
    check(all(len(found) == 1 for found in copies.values()), "one copy of each file")
    words = [f"cp -p {copies[file.name][0]} {file}" for file in (MAIN_CF, MASTER_CF)]
    run(" && ".join([*words, f"postfix -c {MAIN_CF.parent} reload"]))
    same = all(file.read_bytes() == (KEPT / file.name).read_bytes() for file in (MAIN_CF, MASTER_CF))
    check(same, "main.cf and master.cf are as before")


def sockets() -> None:
    """A unix socket that the daemon binds itself, and a socket unit changed as systemd/README.md says."""
    change('[login]\nunix = ""', f'[login]\nunix = "{LOGIN}"')
    run("systemctl restart mailmaps")
    eventually(lambda: Path(LOGIN).is_socket(), f"the daemon has bound {LOGIN}")
    run(f"mailmaps login {USER}", typed="a-long-password-of-jan\n")
    drop_in = Path("/etc/systemd/system/mailmaps-inet.socket.d/override.conf")
    drop_in.parent.mkdir()
    old, new = "127.0.0.1:17020", "127.0.0.1:17120"
    lines = [one for one in quiet("systemctl", "cat", "mailmaps-inet.socket").splitlines() if "=127." in one]
    drop_in.write_text("[Socket]\nListenStream=\n" + "\n".join(lines).replace(old, new) + "\n")
    change(f'inet = "{old}"', f'inet = "{new}"')
    run("systemctl daemon-reload")  # as systemctl edit does
    run(readme_line("systemctl stop mailmaps mailmaps-inet.socket"))
    for unit in ("mailmaps.service", "mailmaps-inet.socket"):
        check(quiet("systemctl", "is-active", unit).strip() == "active", f"{unit} is active")
    eventually(lambda: get(f"{METRICS}/readyz")[0] == 200, "/readyz says 200")
    socket.create_connection(("127.0.0.1", 17120), timeout=30).close()


def change(old: str, new: str) -> None:
    """A line of mailmaps.toml. Raises `Failed`."""
    text = SETTINGS.read_text()
    check(text.count(old) == 1, f"{SETTINGS}: {new.splitlines()[-1]}")
    SETTINGS.write_text(text.replace(old, new))


def readme_line(begin: str) -> str:
    """The command of systemd/README.md that begins so. Raises `Failed`."""
    lines = (PROJECT / "systemd" / "README.md").read_text(encoding="utf-8").splitlines()
    found = [line.strip() for line in lines if line.startswith(f"    {begin}")]
    check(len(found) == 1, f"systemd/README.md has one line {begin}...")
    return found[0]


def failure() -> None:
    """What keeps the daemon from starting is an error in the journal, in the form of all lines."""
    text = SETTINGS.read_text()
    SETTINGS.write_text(f"no_such_setting = 1\n{text}")
    run("systemctl restart mailmaps", codes=(1,))
    said = quiet("journalctl", "-u", "mailmaps", "-p", "err", "-o", "cat", "--no-pager", "-n", "5")
    check("mailmaps.cli.service: ends with a failure command=serve" in said, said.splitlines()[-1])
    check("no_such_setting" in said, "which names the setting")
    SETTINGS.write_text(text)
    eventually(lambda: get(f"{METRICS}/readyz")[0] == 200, "mended, it starts by itself")


def uninstall() -> None:
    """All of it taken away as docs/installing.md says; mail, Postfix and what is not ours stay."""
    mailbox = sorted(Path("/var/vmail").rglob("*"))
    document = PROJECT / "docs" / "installing.md"
    run("make uninstall", codes=(2,))
    check(Path("/opt/mailmaps/bin/mailmaps").exists(), "nothing is removed while units are enabled")
    for line in block(document, "test-install: all of it is taken away"):
        run(line)
    left = quiet("find", "/", "-xdev", "-path", str(PROJECT), "-prune", "-o", "-path", "/wheels", "-prune",
                 "-o", "-name", "*mailmaps*", "-not", "-path", "/var/log/*", "-print")  # fmt: skip
    check(not left.split(), f"nothing of ours is left {left}".strip())
    units = quiet("systemctl", "list-units", "--all", "--plain", "--no-legend", "mailmaps*")
    check("loaded" not in units.replace("not-found", ""), "systemd knows no unit of ours")
    check(sorted(Path("/var/vmail").rglob("*")) == mailbox, "the mail is there")
    check(quiet("systemctl", "is-active", "postfix").strip() == "active", "Postfix runs")


STEPS = {
    one.__name__: one
    for one in (setup, mail, doctor, prometheus, load, sockets, failure, upgrade, back, uninstall)
}


def main(names: list[str]) -> int:
    """Run the steps named, or all."""
    print(f"systemd as PID 1: {quiet('systemctl', '--version').splitlines()[0]}", flush=True)
    for name in names or list(STEPS):
        began = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            STEPS[name]()
        except Failed as error:
            print(f"FAILED: {name}: {error}", flush=True)
            print(quiet("systemctl", "--failed", "--no-legend"), flush=True)
            print(quiet("journalctl", "--no-pager", "-n", "60", *LOGS), flush=True)
            return 1
        print(f"== {name}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
