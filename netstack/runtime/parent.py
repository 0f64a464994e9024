"""A process that must not outlive the one that started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1

# Loaded before any fork: between fork and exec there is no loading.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `number` when `parent` ends; end at once if it has.

    Called in the child, before exec or after; the parent's thread that forked must live as long.
    """
    _libc.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)  # it died in between, and the signal will not come
