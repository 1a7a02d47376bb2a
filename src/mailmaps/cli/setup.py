"""mailmaps setup: a site that answers, from an installed package, without an editor and without SQL.

Both commands look first and change nothing while anything is in doubt (exit code 2 names all of it); run
again, they change nothing that works.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import click

from mailmaps import postconf
from mailmaps.cli.options import Failure, config_option, read_settings
from mailmaps.cli.postfix import FILE_TYPES, MAP_TYPES, config_dir_option, main_cf, queued_options
from mailmaps.cli.schema import site
from mailmaps.config import Settings, SettingsError, parse
from mailmaps.config.dsn import check_dsn, place
from mailmaps.config.load import DEFAULT_PATH
from mailmaps.config.settings import Database
from mailmaps.database import cluster
from mailmaps.database.connect import ConnectError
from mailmaps.database.preflight import SchemaError
from mailmaps.postconf import PostconfError, PostfixValues
from mailmaps.setup import files, settings_text
from mailmaps.setup import postfix as postfix_setup
from mailmaps.setup.database import Opener, Setup
from mailmaps.setup.postfix import Obstacle, Plan
from mailmaps.setup.roles import ROLES, Passwords
from mailmaps.setup.settings_text import Draft

IN_THE_WAY = 2

# Seconds for another command of ours; `mailmaps check` reads a million rows in some tens of seconds.
COMMAND_SECONDS = 600.0

# Seconds for a running `mailmaps filemaps --follow` to make what it is told to, and between looks.
FILES_SECONDS = 60.0
FILES_POLL = 0.2


@click.group()
def setup() -> None:
    """Make the database of a new site and its settings, and have Postfix ask it."""


_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@setup.command()
@config_option
@config_dir_option
@click.option("--database", "name", default="mail", show_default=True, metavar="NAME", help="The database.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the local server, where several run.")
@click.option("--dsn", metavar="DSN", help="A server elsewhere, as who may make roles and databases.")
@click.option("--new-passwords", is_flag=True, help="New ones for all four roles, in their files too.")
@_yes
def database(
    config: Path,
    config_dir: Path | None,
    name: str,
    port: int | None,
    dsn: str | None,
    new_passwords: bool,
    yes: bool,
) -> None:
    """Make the database, its roles and schema, and mailmaps.toml.

    As root, by the local server's socket, or with --dsn (a password by PGPASSWORD). Each role's password
    is made here and kept in a file below /etc/mailmaps; none is shown. Settings that are there
    are kept. Exit code: 0 done, 1 a role cannot log in yet (what to do is said), 2 something is in the way,
    nothing was done.
    """
    if cluster.PLAIN_NAME.fullmatch(name) is None:
        raise Failure(f"--database {name}: take a name of a-z, 0-9 and _", IN_THE_WAY)
    try:
        asyncio.run(_Run(config, config_dir, name, dsn, port, yes, new_passwords).run())
    except (ConnectError, SchemaError, SettingsError, PostconfError) as error:
        raise Failure(str(error), IN_THE_WAY) from None
    except OSError as error:
        raise Failure(f"{error.filename or config}: {error.strerror}", IN_THE_WAY) from None


class _Run:
    """One `setup database`."""

    def __init__(
        self,
        config: Path,
        config_dir: Path | None,
        name: str,
        dsn: str | None,
        port: int | None,
        yes: bool,
        renew: bool,
    ) -> None:
        self._config = config
        self._config_dir = config_dir
        self._name = name
        self._dsn = dsn
        self._port = port
        self._yes = yes
        self._passwords = Passwords(config.parent)
        self._setup = Setup(self._opener(), name, dsn or "", self._passwords, renew=renew)

    def _opener(self) -> Opener:
        limits = Database()
        if self._dsn is not None:
            dsn = _checked(self._dsn)
            return lambda name: cluster.connect_there(dsn, name, limits)
        if os.geteuid() != 0:
            raise Failure(
                "run it as root: it becomes the user of PostgreSQL for a moment, or give --dsn", IN_THE_WAY
            )
        server = self._local()
        return lambda name: cluster.connect_by_socket(server, name, limits.connect_timeout)

    def _local(self) -> cluster.LocalCluster:
        servers = cluster.local_clusters()
        ports = ", ".join(str(one.port) for one in servers)
        chosen = [one for one in servers if self._port in (None, one.port)]
        if not servers:
            raise Failure(
                f"no PostgreSQL runs here (no socket in {cluster.SOCKETS}): apt-get install postgresql and "
                "systemctl start postgresql, or give --dsn for a server elsewhere",
                IN_THE_WAY,
            )
        if not chosen:
            raise Failure(f"no PostgreSQL runs here at port {self._port}; there are {ports}", IN_THE_WAY)
        if len(chosen) > 1:
            raise Failure(f"several servers run here, at ports {ports}: say which with --port", IN_THE_WAY)
        return chosen[0]

    async def run(self) -> None:
        """Look, ask, do. Raises what `database` makes a `Failure` of."""
        found = await self._setup.look()
        old = settings_text.read(self._config)
        settings = parse(old, str(self._config)) if old is not None else Settings()
        wanted = dict(self._wanted(found.dsns))
        problems = found.problems + [
            f"{self._config}: {text}; is this the site of another database?"
            for text in settings_text.conflicts(settings, wanted)
        ]
        if problems:
            raise Failure("\n".join([*problems, "nothing was done"]), IN_THE_WAY)
        draft = settings_text.draft(self._config, old, wanted, self._postfix())
        self._confirm(draft)
        await self._setup.make(found, site(parse(draft.new, str(self._config))), click.echo)
        self._write(draft)
        if problems := await self._setup.logins(found):
            raise Failure("\n".join(problems))
        for role in ROLES:
            click.echo(f"{role.name} can log in to {self._name} at {place(found.dsns[role.name])}")

    def _wanted(self, dsns: dict[str, str]) -> dict[str, str]:
        """What [database] shall have. Elsewhere than in /etc, the passwords' files have to be named."""
        wanted = {role.dsn: dsns[role.name] for role in ROLES}
        if self._config != DEFAULT_PATH:
            folder = self._passwords.folder.absolute()
            wanted |= {role.password_file: str(folder / role.credential) for role in ROLES}
        return wanted

    def _postfix(self) -> PostfixValues | None:
        try:
            found = postconf.read(self._config_dir)
        except PostconfError as error:
            if self._config_dir is not None:
                raise
            click.echo(f"note: Postfix's settings are not known: {error}; run this again when it is there")
            return None
        for note in found.notes:
            click.echo(f"note: {note}")
        return found

    def _confirm(self, draft: Draft) -> None:
        lines = list(draft.diff())
        if lines:
            click.echo("\n".join(lines))
            _ask(f"change {draft.path} like this", yes=self._yes)

    def _write(self, draft: Draft) -> None:
        if not draft.changed:
            click.echo(f"{draft.path} has all of it already")
            return
        draft.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if draft.old is not None:
            click.echo(f"{draft.path} as it was: {files.backup(draft.path)}")
        files.write(draft.path, draft.new, files.PUBLIC)
        click.echo(f"wrote {draft.path}")


def _checked(dsn: str) -> str:
    try:
        found = check_dsn(dsn)
    except ValueError as error:
        raise Failure(f"--dsn: {error}", IN_THE_WAY) from None
    parts = urlsplit(found)
    if ":" in parts.netloc.rpartition("@")[0] or "password" in dict(parse_qsl(parts.query)):
        click.echo(
            "--dsn has a password, which others on this machine can read in the list of processes: next time "
            "PGPASSWORD or ~/.pgpass, and give that role another one",
            err=True,
        )
    return found


def _ask(question: str, *, yes: bool) -> None:
    if not yes and not click.confirm(f"{question}?"):
        raise Failure("nothing was done", IN_THE_WAY)


@setup.command("postfix")
@config_option
@config_dir_option
@click.option(
    "--map-type", type=click.Choice(MAP_TYPES), help="[default: files for virtual(8), tcp for LMTP]"
)
@click.option("--replace", is_flag=True, help="Also what main.cf has of the site's own for these parameters.")
@click.option(
    "--reload", "reload_postfix", is_flag=True, help="Have Postfix read it, if `mailmaps check` allows."
)
@_yes
def setup_postfix(
    config: Path,
    config_dir: Path | None,
    map_type: str | None,
    replace: bool,
    reload_postfix: bool,
    yes: bool,
) -> None:
    """Put the lines of `mailmaps postfix-config` into main.cf and master.cf.

    Shows them and asks, keeps copies of both files, and says how to go back. Exit code: 0 done, 1 done, but
    `mailmaps check` has errors (Postfix is not reloaded then), 2 something is in the way, nothing was done.
    """
    settings = read_settings(config)
    directory = config_dir or Path(settings.postfix.config_directory)
    kind = map_type or _usual(settings)
    try:
        made, values = _plan(settings, directory, kind, replace=replace)
        if not made.changes:
            click.echo(f"{directory} has all of it already")
        else:
            click.echo("\n".join(made.lines()))
            _ask(f"change main.cf and master.cf in {directory} like this", yes=yes)
            _make_files(made, values, config)
            _make_base(settings)
            copies = postfix_setup.apply(made)
            click.echo("done; the way back:")
            click.echo(f"    {postfix_setup.back(copies, directory)}")
    except Obstacle as error:
        raise Failure("\n".join([*error.problems, "nothing was done"]), IN_THE_WAY) from None
    except PostconfError as error:
        raise Failure(f"{error}; nothing was done", IN_THE_WAY) from None
    except OSError as error:
        raise Failure(
            f"{error.filename or directory}: {error.strerror}; nothing was done", IN_THE_WAY
        ) from None
    _examine(config, config_dir)
    if reload_postfix:
        if complaint := postfix_setup.reload(directory):
            click.echo(complaint)
    elif made.changes:
        click.echo(f"Postfix reads it after: postfix -c {directory} reload")


def _usual(settings: Settings) -> str:
    """virtual(8) refuses network tables, and one address goes through one door (postfix/README.md)."""
    return settings.filemaps.type if settings.delivery == "virtual" else "tcp"


def _plan(settings: Settings, directory: Path, map_type: str, *, replace: bool) -> tuple[Plan, list[str]]:
    """What changes, and all values that Postfix shall have. Raises `Obstacle`, `PostconfError`."""
    if settings.delivery == "virtual" and map_type not in FILE_TYPES:
        raise Obstacle(
            [f'delivery is "virtual", and virtual(8) refuses {map_type}: tables: take files, or LMTP']
        )
    wanted = postfix_setup.parameters_in(main_cf(settings, map_type))
    options = {}
    for reader, option in queued_options(settings, map_type):
        parameter, _, value = option.partition("=")
        options[reader.service, parameter] = value
    made = postfix_setup.plan(settings, directory, wanted, options, replace=replace)
    values = [*wanted.values(), *options.values()]
    if problems := postfix_setup.missing(settings, values, postfix_setup.map_types(directory)):
        raise Obstacle(problems)
    return made, values


def _make_files(made: Plan, values: list[str], config: Path) -> None:
    """The files of a new site, empty ones too, which nothing else may make. Raises `Obstacle`.

    Where Postfix reads them already, an empty one would bounce mail: somebody has to look.
    """
    if not postfix_setup.missing_files(values):
        return
    command = ["filemaps", "--force", "--config", str(config)]
    if not made.first:
        raise Obstacle([f"files that Postfix reads are not there: look, then `mailmaps {' '.join(command)}`"])
    done = _mailmaps(*command)
    deadline = time.monotonic() + FILES_SECONDS  # `filemaps --follow`, if that is running, makes them
    while postfix_setup.missing_files(values) and done.returncode == 0 and time.monotonic() < deadline:
        time.sleep(FILES_POLL)
    if left := postfix_setup.missing_files(values):
        said = (
            done.stderr.strip() or f"not within {FILES_SECONDS:g} s; journalctl -u mailmaps-filemaps says why"
        )
        raise Obstacle([f"`mailmaps {' '.join(command)}` did not make {left[0]}: {said}"])
    click.echo("made the files that Postfix reads, as the database has them now")


def _make_base(settings: Settings) -> None:
    """The folder that all mailboxes are in: root's, so that nobody moves another's. Raises `OSError`."""
    base = Path(settings.postfix.virtual_mailbox_base)
    if settings.delivery == "virtual" and base.is_absolute() and not base.exists():
        base.mkdir(mode=0o755, parents=True)
        base.chmod(0o755)
        click.echo(f"made {base}")


def _examine(config: Path, config_dir: Path | None) -> None:
    """Have the doctor look, as a program of its own: it finds the settings as anybody else would now."""
    where = ["--config-dir", str(config_dir)] if config_dir is not None else []
    done = _mailmaps("check", "--config", str(config), *where)
    for line in done.stdout.splitlines():
        if not line.startswith("ok"):
            click.echo(line)
    if done.returncode not in (0, 1):
        click.echo(done.stderr, err=True, nl=False)
        raise Failure("`mailmaps check` has errors, named above; Postfix was not reloaded")


def _mailmaps(*words: str) -> subprocess.CompletedProcess[str]:
    """Another command of ours, as anybody else would run it now. Raises `Failure` where it takes too long."""
    program = [sys.executable, "-m", "mailmaps", *words]
    try:
        return subprocess.run(program, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"`mailmaps {words[0]}` took more than {COMMAND_SECONDS:g} s") from None
