"""What the tests of outages share: servers to trouble, a proxy, writers with a history, clients that ask."""
