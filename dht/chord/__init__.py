"""Chord: who owns a key, found in O(log N) steps, and kept right while peers come, go and die."""
