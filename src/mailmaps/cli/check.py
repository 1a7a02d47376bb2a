"""mailmaps check: does it all fit together? One line each, and what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from mailmaps import cf_files, postconf
from mailmaps.cf_checks import cf_findings
from mailmaps.cli.ask import files_of_daemon
from mailmaps.cli.options import config_option
from mailmaps.cli.policy_checks import asks_us, service_findings, writing_findings
from mailmaps.cli.postfix import config_dir_option
from mailmaps.cli.postfix_checks import smtpds, table_findings
from mailmaps.config import Settings, SettingsError, load
from mailmaps.database.checks import database_findings
from mailmaps.findings import Finding, Level
from mailmaps.postconf import PostconfError

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


@click.command()
@config_option
@config_dir_option
@click.pass_context
def check(context: click.Context, config: Path, config_dir: Path | None) -> None:
    """Say whether settings, database, schema, queries and Postfix fit together.

    Exit code: 0 all is well, 1 there are warnings, 2 there are errors.
    """
    try:
        settings = load(config)
    except SettingsError as error:
        findings = [Finding(Level.ERROR, "settings", problem) for problem in error.problems]
    else:
        findings = [Finding(Level.OK, "settings", f"{config} can be read")]
        findings += asyncio.run(database_findings(settings))
        findings += asyncio.run(writing_findings(settings))
        findings += asyncio.run(cf_findings(settings, files_of_daemon(settings)))
        findings += postfix_findings(settings, config_dir or Path(settings.postfix.config_directory))
    for finding in findings:
        _print(finding)
    context.exit(max(finding.level for finding in findings))


def postfix_findings(settings: Settings, config_dir: Path | None) -> list[Finding]:
    """Compare our [postfix] section with Postfix's own; a difference bounces mail, so it is an error."""
    try:
        found, exceptions = postconf.read(config_dir), postconf.overrides(config_dir)
        folder = config_dir or Path(settings.postfix.config_directory)
        tables, services = table_findings(settings, folder), smtpds(folder)
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
    return findings + tables + service_findings(settings, services)


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
