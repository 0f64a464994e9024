"""Seeded simulations of whole clusters: the daemons' own services in virtual time."""
