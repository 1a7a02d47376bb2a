"""What the figures were measured on: the machine and the version of everything that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from mailmaps.demo.launcher import programs

LIBRARIES = ("uvloop", "asyncpg", "lmdb")

REPOSITORY = Path(__file__).parent.parent


def described() -> list[tuple[str, str]]:
    """Names and values, for a table."""
    libraries = ", ".join(f"{name} {_library(name)}" for name in LIBRARIES)
    return [
        ("Date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("mailmaps", f"{_library('mailmaps')}, commit {_commit()}"),
        ("Processor", f"{_processor()}, {os.cpu_count()} cores{_virtual()}"),
        ("Memory", f"{_memory_gigabytes():.0f} GB"),
        ("System", f"{_system()}, Linux {platform.release()}"),
        ("Python", f"{platform.python_version()}; {libraries}"),
        ("PostgreSQL", _said([str(programs() / "postgres"), "--version"]).rpartition(" ")[2]),
        ("Postfix", _said(["postconf", "-h", "mail_version"])),
        ("C compiler", _said(["cc", "--version"]).partition("\n")[0] or "none"),
        ("Load before", " ".join(f"{load:.2f}" for load in os.getloadavg()) + " (1, 5, 15 min)"),
    ]


def _library(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _commit() -> str:
    git = ["git", "-C", str(REPOSITORY)]
    changed = _said([*git, "status", "--porcelain", "--untracked-files=no", "--", "src"])
    return (_said([*git, "rev-parse", "--short", "HEAD"]) or "unknown") + (" and changes" if changed else "")


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _virtual() -> str:
    return ", virtual" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""


def _memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _said(words: list[str]) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
