"""The policy service's part of `mailmaps check`: is its schema there, ours to write, and full of sense?

Asked with a connection of `database.write_dsn`. It reads catalogs, which every role may, before it reads a
table, so that a right that is missing is named instead of running into it. Expired grants and overrides that
have ended are no fault: they are counted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg

from mailmaps.database.connect import reason
from mailmaps.database.inspect import LISTED
from mailmaps.database.sql_files import POLICY
from mailmaps.findings import Finding, Level

if TYPE_CHECKING:
    from mailmaps.database.connect import Connection

SUBJECT = POLICY.schema
MAKE = "mailmaps schema policy, with a --dsn of the tables' owner"
GRANTS = f"{SUBJECT}.sender_grants"
LIMITS = f"{SUBJECT}.sending_limits"

# Not to_regclass(): that fails for a role without rights on the schema.
_SCHEMA = """SELECT has_schema_privilege(n.oid, 'USAGE') AS usable, quote_ident(current_user) AS role,
                    has_table_privilege(c.oid, 'SELECT') AS readable
   FROM pg_namespace n
   JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'schema_version'
   WHERE n.nspname = $1"""

# What is ours by name and lacks a right, with the rights that it lacks.
_LACKING = """SELECT c.relname AS name, string_agg(p.lacking, ', ' ORDER BY p.place) AS rights
   FROM pg_class c
   JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1,
      LATERAL unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (lacking, place)
   WHERE c.relkind = 'r' AND c.relname <> 'schema_version' AND NOT has_table_privilege(c.oid, p.lacking)
   GROUP BY c.relname
   UNION ALL
   SELECT p.proname, 'EXECUTE'
   FROM pg_proc p
   JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = $1
   WHERE p.prorettype <> 'trigger'::regtype AND NOT has_function_privilege(p.oid, 'EXECUTE')
   ORDER BY 1"""

_ENDED = """SELECT (SELECT count(*) FROM mailpolicy.sender_grants WHERE expires <= now()) AS grants,
                   (SELECT count(*) FROM mailpolicy.sending_limits WHERE until <= now()) AS limits"""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Postfix drops a final dot before it asks, and the rest is in no domain (schema/0004_addresses.sql).
_NO_DOMAIN = re.compile(r'[\x00-\x20"(),;<>\\]|^\.|\.$|\.\.|^$')


async def policy_findings(connection: Connection) -> list[Finding]:
    """Return what is wrong with the schema mailpolicy and its rows; OK lines included."""
    try:
        findings = await _schema_findings(connection)
        if any(finding.level is Level.ERROR for finding in findings):
            return findings
        return [
            *findings,
            *_listed(GRANTS, await _doubtful_grants(connection)),
            *_listed(LIMITS, await _doubtful_limits(connection)),
            *await _ended_findings(connection),
        ]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return [Finding(Level.ERROR, SUBJECT, reason(error))]


async def _schema_findings(connection: Connection) -> list[Finding]:
    row = await connection.fetchrow(_SCHEMA, SUBJECT)
    if row is None:
        return [Finding(Level.ERROR, SUBJECT, "is not there", MAKE)]
    if not (row["usable"] and row["readable"]):
        return [
            Finding(Level.ERROR, SUBJECT, f"the role {row['role']} may not read it", _remedy(row["role"]))
        ]
    version = await connection.fetchval("SELECT max(version) FROM mailpolicy.schema_version") or 0
    newest = POLICY.migrations()[-1].version
    if version != newest:
        text = f"is of version {version}, this mailmaps wants {newest}"
        return [Finding(Level.ERROR, SUBJECT, text, MAKE if version < newest else "upgrade mailmaps")]
    lacking = [
        Finding(
            Level.ERROR,
            f"{SUBJECT}.{lack['name']}",
            f"the role {row['role']} has no right to {lack['rights']}",
            _remedy(row["role"]),
        )
        for lack in await connection.fetch(_LACKING, SUBJECT)
    ]
    return lacking or [Finding(Level.OK, SUBJECT, f"is of version {version}")]


def _remedy(role: str) -> str:
    return MAKE if role == "mailwriter" else f"let database.write_dsn name the role mailwriter, or: {MAKE}"


async def _doubtful_grants(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT id, login, address FROM mailpolicy.sender_grants ORDER BY id")
    problems = []
    for row in rows:
        if problem := _login_problem(row["login"]):
            problems.append(f'grant {row["id"]}: nobody logs in as "{row["login"]}", which {problem}')
        if problem := _address_problem(row["address"]):
            problems.append(f'grant {row["id"]}: nobody sends as "{row["address"]}", which {problem}')
    return problems


async def _doubtful_limits(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT scope, name FROM mailpolicy.sending_limits ORDER BY scope, name")
    problems = []
    for scope, name in rows:
        problem = _login_problem(name) if scope == "login" else _domain_problem(name)
        if problem:
            problems.append(f'the {scope} "{name}" {problem}, so this limits nobody')
    return problems


def _login_problem(login: str) -> str:
    if _CONTROL.search(login):
        return "holds a control character"
    if login.startswith("!"):
        return "begins with !"
    return "begins or ends with a blank" if login != login.strip() else ""


def _address_problem(address: str) -> str:
    """Why it is neither an address, nor @domain, nor `*`; empty when it is one of them."""
    local, at, domain = address.rpartition("@")
    if address == "*":
        return ""
    if not at:
        return "is neither an address nor @domain nor *"
    if _CONTROL.search(local):
        return "holds a control character"
    return _domain_problem(domain)


def _domain_problem(domain: str) -> str:
    return "has a domain that is none" if "@" in domain or _NO_DOMAIN.search(domain) else ""


def _listed(subject: str, problems: list[str]) -> list[Finding]:
    findings = [Finding(Level.WARNING, subject, problem) for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        findings.append(Finding(Level.WARNING, subject, f"and {len(problems) - LISTED} more"))
    return findings


async def _ended_findings(connection: Connection) -> list[Finding]:
    row = await connection.fetchrow(_ENDED)
    if row is None:  # it has one row whatever there is
        return []
    counted = ((GRANTS, row["grants"], "expired"), (LIMITS, row["limits"], "ended"))
    return [
        Finding(Level.OK, subject, f"{number} have {word}") for subject, number, word in counted if number
    ]
