"""What is seen in a bare Debian 12 after `make install` (`make test-install`): run in the tree, as root.

Only what Debian's python3 has is used here: this is the machine of a postmaster, not ours.
"""
