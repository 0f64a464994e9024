"""`ring mr graph`."""


def graph() -> None:
    """x"""
