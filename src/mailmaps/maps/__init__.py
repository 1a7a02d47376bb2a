"""What a lookup means: keys, candidates in search order, rows, answers."""
