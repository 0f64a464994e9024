"""Reliable streams over UDP, encrypted and authenticated both ways. See README.md."""
