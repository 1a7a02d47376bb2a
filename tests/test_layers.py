"""Imports run one way: cli -> daemon -> edge -> config -> services -> pure.

The modules are read with `ast`, never imported, so that an import inside a function counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

# From the top down; a module may import from its own layer's packages and from layers below it.
LAYERS = (
    ("mailmaps.cli", "mailmaps.manual", "mailmaps.__main__"),
    ("mailmaps.demo", "mailmaps.daemon", "mailmaps.migration", "mailmaps.setup", "mailmaps.filemaps",
     "mailmaps.maildirs", "mailmaps.doctor", "mailmaps.report", "mailmaps.administration"),
    ("mailmaps.tableset", "mailmaps.reloading", "mailmaps.logins", "mailmaps.sending",
     "mailmaps.sending_commands", "mailmaps.notifying"),
    ("mailmaps.connection", "mailmaps.ordered_connection", "mailmaps.login_connection",
     "mailmaps.policy_connection", "mailmaps.control", "mailmaps.listeners", "mailmaps.client",
     "mailmaps.clients", "mailmaps.endpoints", "mailmaps.inherited", "mailmaps.service_manager",
     "mailmaps.watchdog", "mailmaps.http_connection", "mailmaps.observing", "mailmaps.metrics",
     "mailmaps.database", "mailmaps.notices", "mailmaps.grants_file",
     "mailmaps.mirrors", "mailmaps.postconf", "mailmaps.cf_files", "mailmaps.cf_checks"),
    ("mailmaps.config",),
    ("mailmaps.maps.lookup", "mailmaps.auth", "mailmaps.policy", "mailmaps.administration.csv_file"),
    ("mailmaps.maps", "mailmaps.protocols", "mailmaps.findings", "mailmaps.logs", "mailmaps.auth.attempt",
     "mailmaps.policy.texts", "mailmaps.policy.action", "mailmaps.policy.mail",
     "mailmaps.notices.notice", "mailmaps.notices.message", "mailmaps.notices.once",
     "mailmaps.notices.foreign", "mailmaps.notices.away",
     "mailmaps.administration.names"),
    ("mailmaps",),
)  # fmt: skip

# Who alone may name a library.
OWNERS = {
    "asyncpg": ("mailmaps.database",),
    "aiosmtplib": ("mailmaps.notices",),
    "PIL": ("mailmaps.report.picture",),
    "lmdb": ("mailmaps.mirrors", "mailmaps.filemaps"),
    "uvloop": ("mailmaps.cli",),
    "h11": ("mailmaps.http_connection",),
    "prometheus_client": ("mailmaps.metrics",),
    "click": ("mailmaps.cli", "mailmaps.manual"),
    "pydantic": ("mailmaps.config",),
    "pam": ("mailmaps.auth.pam",),
    "passlib": ("mailmaps.auth.passwords",),
    "argon2": ("mailmaps.auth.passwords",),
    "bcrypt": ("mailmaps.auth.passwords",),
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> int:
    matches = [
        (len(package), number)
        for number, packages in enumerate(LAYERS)
        for package in packages
        if within(module, package)
    ]
    return max(matches)[1]


@pytest.mark.parametrize(("module", "path"), [pytest.param(*pair, id=pair[0]) for pair in modules()])
def test_no_upward_import(module: str, path: Path) -> None:
    upward = [name for name in imports(path) if within(name, "mailmaps") and layer(name) < layer(module)]
    assert upward == []


@pytest.mark.parametrize(("module", "path"), [pytest.param(*pair, id=pair[0]) for pair in modules()])
def test_a_library_has_one_owner(module: str, path: Path) -> None:
    strangers = [
        name
        for name in imports(path)
        for library, owners in OWNERS.items()
        if within(name, library) and not any(within(module, owner) for owner in owners)
    ]
    assert strangers == []


def test_an_upward_import_would_be_seen() -> None:
    assert layer("mailmaps.daemon.Daemon") < layer("mailmaps.maps.search")
    assert layer("mailmaps.maps.lookup.Table") < layer("mailmaps.maps.search")
