"""First-time setup: from an installed package to a site that answers, without an editor and without SQL."""
