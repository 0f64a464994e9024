"""What a user runs: the `ring` command, the supervisor, benchmarks. See README.md."""
