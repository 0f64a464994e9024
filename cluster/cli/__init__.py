"""The commands of `ring`, a file a group. Each is a thin face over supervisor, daemons or tools."""
