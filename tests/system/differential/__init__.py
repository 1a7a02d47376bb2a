"""The proof against the master: one Postfix with `pgsql:`, others with mailmaps, and no difference.

`python -m tests.system.differential --count 100000` is the big run (`make differential`); the test
test_indistinguishable.py is a sample of it. From bottom to top:

    settings        the settings of main.cf that decide a search, and which of them go together
    addresses       whom strangers write to: seeded
    sink            where mail ends: an LMTP server that learns for whom a message was meant
    transaction     one mail transaction with many recipients
    instances       the Postfixes, the daemon and the files of one site with one choice of settings
    comparison      sends, waits, compares; what differs is asked again by itself
    run             all sites and settings
"""
