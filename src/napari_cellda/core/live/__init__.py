"""Live painting: snapshots in, answers out, the newest stroke first."""
