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

from netstack.rpc.errors import brief

REQUEST, REPLY, ERROR, CANCEL, ITEM, END, CREDIT, NOTIFY, HELLO = range(9)

# How many fields each kind has, its kind included, and the type of the first behind it.
FORMS = {
    REQUEST: (6, int),
    REPLY: (3, int),
    ERROR: (3, int),
    CANCEL: (2, int),
    ITEM: (3, int),
    END: (2, int),
    CREDIT: (3, int),
    NOTIFY: (3, str),
    HELLO: (2, bytes),
}

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
                if type(message) is not list:
                    raise ProtocolError(f"not an array: {brief(message)}")
                if FORMS[message[0]] != (len(message), type(message[1])):
                    raise ProtocolError(f"malformed message: {brief(message)}")
                yield message
        except msgpack.exceptions.BufferFull:
            if len(data) == 1:
                raise ProtocolError("a message is larger than this side accepts") from None
            # The last bytes of a large message, and others behind it that want their room.
            middle = len(data) // 2
            yield from self.feed(data[:middle])
            yield from self.feed(data[middle:])
        except (msgpack.exceptions.UnpackException, LookupError, TypeError, ValueError) as error:
            raise ProtocolError(f"not a message: {brief(error)}") from None


_packer = msgpack.Packer(use_bin_type=True)


def encode(message: tuple[Any, ...]) -> bytes:
    """One message as bytes.

    Raises TypeError or OverflowError for what msgpack has no form for, ValueError for what is
    nested too deeply or larger than MESSAGE_BYTES_MAX.
    """
    # A packer kept and used again is twice as fast as msgpack.packb, which makes one a call.
    try:
        data: bytes = _packer.pack(message)
    except Exception:
        _packer.reset()
        raise
    if len(data) > MESSAGE_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes are too many")
    return data


def notify(method: str, body: Any) -> bytes:
    """An encoded one-way message."""
    return encode((NOTIFY, method, body))
