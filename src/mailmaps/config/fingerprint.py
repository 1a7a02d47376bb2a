"""A short word for all settings, by which `mailmaps check` sees whether the daemon runs with the file's.

Of what names a database only user, place and name count: a DSN may hold a password, and a hash of it could be
guessed at.
"""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlsplit

from mailmaps.config.settings import Settings

_DSN = "_dsn"


def fingerprint(settings: Settings) -> str:
    """Equal for equal settings, whatever passwords their DSNs hold."""
    values = settings.model_dump(mode="json")
    database = values["database"]
    for name in list(database):
        if name == "dsn" or name.endswith(_DSN):
            parts = urlsplit(database[name])
            database[name] = [parts.username, parts.netloc.rpartition("@")[2], parts.path]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
