"""What `mailmaps check` finds out about rows: what they say together, and where mail for an address goes."""
