"""Moving a site over: what its Postfix asks `pgsql:` today, what becomes of each use, and the proof.

`mailmaps migrate` reads the configuration of Postfix (configuration.py), finds the uses of `pgsql:`
(uses.py), decides about each (plan.py, with what readers.py knows about Postfix and files.py about the
.cf files, and services.py about master.cf), writes the new files (settings_file.py, report.py)
and tries both ways on a copy (rehearsal.py).
`mailmaps compare` asks the old maps (old_side.py) and the running daemon (new_side.py) the same keys
(keys.py, maillog.py, derived_keys.py) and lists the differences (comparison.py).
"""
