"""Mail through a real Postfix while PostgreSQL and the daemon are stopped, hung and killed at random."""
