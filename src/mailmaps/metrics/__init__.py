"""What the daemon counts and holds, as Prometheus reads it."""
