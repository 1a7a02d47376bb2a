"""A PostgreSQL of our own, for `mailmaps demo` and for the tests."""
