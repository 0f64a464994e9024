"""A whole cluster in one process and in virtual time, from one seed. `World` is the way in."""
