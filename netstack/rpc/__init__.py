"""Requests, replies and server streams in msgpack over netstack's transport. See README.md."""
