"""Whether a system was right while things broke: histories, and what may be said of them."""
