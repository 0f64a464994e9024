"""The wire form of a conversation: msgpack arrays, one behind the other, on an ordered stream.

    [REQUEST, id, method, body, timeout_ms, key]    key: [client, sequence, done, incarnation]
    [REPLY,   id, body]
    [ERROR,   id, [code, message, details]]
    [CANCEL,  id]                                   the caller no longer waits
    [ITEM,    id, body]                             one element of a server stream
    [END,     id]                                   the server stream is complete
    [CREDIT,  id, count]                            the caller has room for `count` more items
    [NOTIFY,  method, body]                         no answer wanted, none given
    [HELLO,   incarnation]                          once, first: which life of the process this is

The key of a REQUEST is None unless the call is to run at most once (see dedup.py).

Arrays need no length prefix: msgpack says where each ends, and its C reader splits a whole packet
train of them in one pass. Ids are chosen by the caller; each side numbers its own calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

REQUEST, REPLY, ERROR, CANCEL, ITEM, END, CREDIT, NOTIFY, HELLO = range(9)

# How many fields each kind has, its kind included; anything else is a protocol error.
LENGTHS = (6, 3, 3, 2, 3, 2, 3, 3, 2)

# Largest message that is ever assembled in memory: a value, a page of a range, a snapshot chunk.
# Half of a stream's buffer, so that a lane that is not congested has room for any.
MESSAGE_BYTES_MAX = 8 * 1024 * 1024


class ProtocolError(Exception):
    """The peer sent something that is no message of this protocol; the connection must end."""


class Decoder:
    """Splits the bytes of a stream into messages, with a bound on what it holds."""

    __slots__ = ("_unpacker",)

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False, strict_map_key=False, use_list=True, max_buffer_size=message_bytes_max
        )

    def feed(self, data: bytes | memoryview) -> Iterator[list[Any]]:
        """The messages that `data` completes, in order; ProtocolError at the first bad one."""
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                try:
                    if LENGTHS[message[0]] != len(message) or message[0] < 0:
                        raise ProtocolError(f"malformed message: {message!r:.100}")
                except (TypeError, IndexError, KeyError):
                    raise ProtocolError(f"not a message: {message!r:.100}") from None
                yield message
        except msgpack.exceptions.BufferFull:
            raise ProtocolError("a message is larger than this side accepts") from None
        except (msgpack.exceptions.UnpackException, ValueError, TypeError) as error:
            raise ProtocolError(f"not msgpack: {error}") from None


_packer = msgpack.Packer(use_bin_type=True)


def encode(message: tuple[Any, ...]) -> bytes:
    """One message as bytes. Raises TypeError for what msgpack has no form for."""
    # A packer kept and used again is twice as fast as msgpack.packb, which makes one a call.
    try:
        return _packer.pack(message)  # type: ignore[no-any-return]
    except Exception:
        _packer.reset()
        raise


def notify(method: str, body: Any) -> bytes:
    """An encoded one-way message."""
    return encode((NOTIFY, method, body))
