"""What this machine can do at most, and how near to it our kernels come (row 32)."""
