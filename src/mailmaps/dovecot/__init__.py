"""Dovecot's side of logins: the programs it runs (checkpassword.py, mailmaps.lua) and its configuration."""
