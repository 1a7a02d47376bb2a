"""Logins: who may log in, with which password, and what he is given."""
