"""The floor of a checkpassword program in Python: reads fd 3 to its end and says yes, whoever it is.

It is run as `python3 -IS`, imports nothing, asks nobody, and goes on as checkpassword-reply with as many
fields as checkpassword.py has; so what checkpassword.py takes beyond it is its own work and the daemon's.
"""

import posix
import sys

FIELDS = {
    b"userdb_uid": b"5001",
    b"userdb_gid": b"5001",
    b"userdb_mail": b"maildir:/nonexistent/demo.example/user0",
    b"userdb_quota_rule": b"*:storage=25M",
}

while posix.read(3, 4096):
    pass
posix.execve(
    sys.argv[1],
    sys.argv[1:],
    {
        **posix.environ,
        **FIELDS,
        b"USER": b"user0",
        b"HOME": b"/nonexistent/home",
        b"EXTRA": b" ".join(FIELDS),
    },
)
