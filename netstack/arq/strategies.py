"""All senders and receivers by name: any of the one works with any of the other."""

from __future__ import annotations

from typing import Final

from netstack.arq.buffering import BufferingReceiver
from netstack.arq.fixed_window import FixedWindowSender
from netstack.arq.flushing import FlushingReceiver
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.lock_step import LockStepSender
from netstack.arq.nak import NakReceiver
from netstack.arq.receiver import Receiver
from netstack.arq.sender import Sender
from netstack.arq.sliding_window import SlidingWindowSender

SENDERS: Final[dict[str, type[Sender]]] = {
    "lock-step": LockStepSender,
    "fixed-window": FixedWindowSender,
    "sliding-window": SlidingWindowSender,
}

RECEIVERS: Final[dict[str, type[Receiver]]] = {
    "in-order": InOrderReceiver,
    "buffer": BufferingReceiver,
    "flush": FlushingReceiver,
    "nak": NakReceiver,
}
