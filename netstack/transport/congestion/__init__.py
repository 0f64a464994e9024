"""Congestion controllers: one small file each, behind one small interface (base.py)."""
