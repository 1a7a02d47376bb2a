"""mailmaps answers Postfix's and Dovecot's questions from PostgreSQL."""

from importlib.metadata import version

__version__ = version("mailmaps")
