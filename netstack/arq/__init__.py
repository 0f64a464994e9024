"""Automatic repeat request as it is taught: three senders, four receivers, any two of them."""
