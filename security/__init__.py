"""Who is who, and a channel nobody can read, change or replay. See README.md."""
