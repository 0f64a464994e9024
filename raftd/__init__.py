"""A replicated, linearizable key-value store: Raft as its paper tells it. See README.md."""
