"""The rows of the table: each module measures what belongs together and gives its figures.

`ROWS` has them by the name that `--only` takes, in the order of the table.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import Result
from benchmarks.rows import (
    changes,
    connections,
    files,
    logins,
    million,
    misses,
    policy,
    postmap,
    smtpd,
    sockets,
)
from benchmarks.suite import Suite

ROWS: dict[str, Callable[[Suite], Result]] = {
    "one": postmap.one_client,
    "eight": postmap.eight_clients,
    "sockets": sockets.sixty_four,
    "unknown": postmap.unknown_keys,
    "misses": misses.without_mirror,
    "smtpd": smtpd.sessions,
    "files": files.files,
    "changes": changes.commit_to_answer,
    "million": million.million,
    "connections": connections.used,
    "logins": logins.logins,
    "policy": policy.policy,
}
