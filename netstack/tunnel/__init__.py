"""TCP connections of ordinary programs, carried over the transport."""
