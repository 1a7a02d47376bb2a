"""Files that Postfix reads itself: each listable table as `lmdb:` or `cdb:`, made and kept current.

From a change to the file, in order: `service` hears of it, `reading` reads the rows in one transaction,
`wanted` says what the files shall say (`contents` is the rule), `fileset` changes them in the order that
loses no mail, `lmdb_file` does it under Postfix's locks (and `maps` has postmap(1) make a cdb of it).

They are not the mirror's files, although those are LMDB too. A mirror knows of keys that answer nothing,
which in a file of Postfix would be an error (an empty value); it has a row of bookkeeping, which `postmap -s`
would list; it is written without waiting for anybody, while these wait for the locks of Postfix's readers,
and so must not be written by a daemon that answers lookups; it is nobody else's to read, these are
everybody's; and it says at once what the database says, while these keep what is removed for mail that has
been accepted.
"""
