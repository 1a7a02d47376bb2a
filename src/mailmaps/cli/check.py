"""mailmaps check: does it all fit together? One line each, and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import click

from mailmaps import cf_files, postconf
from mailmaps.cf_checks import cf_findings
from mailmaps.cli.ask import files_of_daemon
from mailmaps.cli.endpoint_checks import endpoint_findings
from mailmaps.cli.main_cf import merged, readers, smtpds
from mailmaps.cli.options import config_option
from mailmaps.cli.policy_checks import asks_us, service_findings, writing_findings
from mailmaps.cli.postfix import config_dir_option
from mailmaps.cli.postfix_checks import table_findings
from mailmaps.cli.smtpd_checks import smtpd_findings
from mailmaps.cli.socket_checks import socket_findings
from mailmaps.cli.table_checks import table_list_findings
from mailmaps.config import Settings, SettingsError, load
from mailmaps.database.checks import database_findings
from mailmaps.doctor.counted import SHOWN
from mailmaps.doctor.domains import domain_findings
from mailmaps.doctor.rows import row_findings
from mailmaps.findings import Finding, Level
from mailmaps.postconf import PostconfError
from mailmaps.tableset import rules as rules_of

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command()
@config_option
@config_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
@click.option("--all", "show_all", is_flag=True, help="Name every row, not only the first few of a kind.")
@click.pass_context
def check(
    context: click.Context, config: Path, config_dir: Path | None, as_json: bool, show_all: bool
) -> None:
    """Say whether settings, database, schema, rows, queries, Postfix and the daemon fit together.

    Exit code: 0 all is well, 1 there are warnings, 2 there are errors.
    """
    findings: list[Finding] = []
    for found in _all_findings(config, config_dir, None if show_all else SHOWN):
        findings.append(found)
        if not as_json:
            _print(found)  # reading a million rows takes a while
    if as_json:
        click.echo(json.dumps([found.as_json() for found in findings], ensure_ascii=False, indent=1))
    context.exit(max(found.level for found in findings))


def _all_findings(config: Path, config_dir: Path | None, most: int | None) -> Iterator[Finding]:
    """Part by part; `most` lines of each kind of doubt about rows."""
    try:
        settings = load(config)
    except SettingsError as error:
        yield from (Finding(Level.ERROR, "settings", problem) for problem in error.problems)
        return
    yield Finding(Level.OK, "settings", f"{config} can be read")
    rules = rules_of(settings)
    yield from asyncio.run(database_findings(settings))
    yield from asyncio.run(writing_findings(settings))
    yield from asyncio.run(cf_findings(settings, files_of_daemon(settings)))
    yield from asyncio.run(row_findings(settings, rules, most=most))
    yield from asyncio.run(domain_findings(settings, rules, most=most, config_dir=config_dir))
    yield from postfix_findings(settings, config_dir or Path(settings.postfix.config_directory))
    yield from endpoint_findings(settings)


def postfix_findings(settings: Settings, config_dir: Path | None) -> list[Finding]:
    """Compare our [postfix] section with Postfix's own; a difference bounces mail, so it is an error."""
    try:
        found, exceptions = postconf.read(config_dir), postconf.overrides(config_dir)
        folder = config_dir or Path(settings.postfix.config_directory)
        found_readers = readers(folder)
        tables, services = table_findings(settings, folder, found_readers), smtpds(found_readers)
    except PostconfError as error:
        return [Finding(Level.WARNING, "postfix", f"not compared: {error}")]
    ours = settings.postfix.model_dump()
    findings = [Finding(Level.WARNING, "postfix", note) for note in found.notes]
    asked = [name.removeprefix(cf_files.PREFIX) for name in cf_files.sources(settings)]
    unused = {"mail_version"} if not asked else set()
    unused |= {"config_directory"} if all(name.startswith("/") for name in asked) else set()
    unused |= set() if Path(settings.filemaps.directory).exists() else set(postconf.DELIVERY)
    unused |= set() if asks_us(settings, services) else set(postconf.SENDERS)
    for name, value in found.values.items():
        if name in unused:
            continue
        findings += _compared(f"postfix.{name}", name, ours[name], value)
    for one in exceptions:
        if one.parameter in unused:
            continue
        theirs = postconf.convert(one.parameter, one.value)
        findings += _compared(f"master.cf {one.service}", one.parameter, ours[one.parameter], theirs)
    if not any(finding.level is Level.ERROR for finding in findings):
        findings.append(Finding(Level.OK, "postfix", "the settings of a search equal Postfix's"))
    more = table_list_findings(settings, found_readers)
    more += smtpd_findings(settings, found_readers) + socket_findings(found_readers)
    return merged(findings + tables + service_findings(settings, services) + more)


def _compared(subject: str, parameter: str, ours: object, theirs: object) -> list[Finding]:
    text = None if theirs is None else postconf.difference(parameter, ours, theirs)
    if text is None:
        return []
    remedy = "mailmaps config --from-postconf prints the settings that fit"
    return [Finding(Level.ERROR, subject, f"{parameter}: {text}", remedy)]


def _print(finding: Finding) -> None:
    word = click.style(f"{finding.level.name.lower():8}", fg=_COLOURS[finding.level])
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    click.echo(f"{word}{finding.subject}: {finding.text}{remedy}")
