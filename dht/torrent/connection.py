"""One connection to a peer, without I/O: bytes in, events out; what to say in, bytes out.

    buffer() ─ where the next bytes go          request(…), choke(), have(…) … ─┐
    received(n, now) ─> [Block, Has, Request …]                                 └─> take_output()

What it guarantees, whatever the peer sends:

  - no message is longer than the longest legal one, and none is waited for beyond MESSAGE_S;
  - an event speaks of pieces and blocks that exist; a Block was asked for, and comes once;
  - what may come first, once, or only with an extension is held to that; the rest of BEP 3, 6
    and 10 too. A breach raises ProtocolViolation: the caller closes, and perhaps bans.

Blocks are not copied here. A Block's data is a view of the receive buffer, which stays as it is
until `buffer` or `feed` is called again.

Where a peer is only odd and not dangerous (a have twice, a request that is cancelled too late), it
is let be. Where it costs us something each time, it may do so NONSENSE_MAX times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dht.torrent import events, messages
from dht.torrent.bencode import Value, decode_prefix, encode
from dht.torrent.errors import Malformed, ProtocolViolation
from dht.torrent.messages import Handshake
from dht.torrent.metainfo import PIECES_MAX
from dht.torrent.shape import BLOCK, Shape

# Holds the longest legal message, a bitfield of PIECES_MAX, and many blocks: one system call
# brings up to sixteen.
BUFFER: Final = 256 << 10
EXTENDED_MAX: Final = 64 << 10  # a block of metadata and its dictionary; PEX is far less
HANDSHAKE_S: Final = 10.0
MESSAGE_S: Final = 60.0  # from its first byte to its last: 16 KiB at 273 B/s
IDLE_S: Final = 180.0  # peers send keep-alives every 120 s
KEEP_ALIVE_S: Final = 100.0
REQUESTS_MAX: Final = 500  # of the peer's that wait here; we say so in `reqq`
NONSENSE_MAX: Final = 100
ALLOWED_MAX: Final = 64

# Extensions that we offer, by the numbers under which we want them.
OFFERED: Final = {1: b"ut_metadata", 2: b"ut_pex"}

_MIN_PAYLOAD: Final = {
    messages.CHOKE: 0, messages.UNCHOKE: 0, messages.INTERESTED: 0, messages.NOT_INTERESTED: 0,
    messages.HAVE: 4, messages.REQUEST: 12, messages.CANCEL: 12, messages.PORT: 2,
    messages.SUGGEST: 4, messages.HAVE_ALL: 0, messages.HAVE_NONE: 0, messages.REJECT: 12,
    messages.ALLOWED_FAST: 4,
}  # fmt: skip
_FAST: Final = frozenset(
    (
        messages.SUGGEST,
        messages.HAVE_ALL,
        messages.HAVE_NONE,
        messages.REJECT,
        messages.ALLOWED_FAST,
    )
)


class PeerConnection:
    """The state of both directions.

    Args:
        ours: our handshake. A caller's is sent at once, an accepter's when the peer's has come.
        shape: None until the metadata is there (see `learn`).
        extension_handshake: what ours says beside `m` and `reqq`.
    """

    def __init__(
        self,
        ours: Handshake,
        shape: Shape | None,
        *,
        caller: bool,
        now: float,
        extension_handshake: Mapping[bytes, Value] | None = None,
    ) -> None:
        self.ours = ours
        self.shape = shape
        self.caller = caller
        self.peer_id = b""
        self.fast = False
        self.extensions = False
        self.open = False  # the handshakes are over
        self.am_choking = self.peer_choking = True
        self.am_interested = self.peer_interested = False
        self.have = bytearray(shape.count if shape else 0)  # of the peer: one byte a piece
        self.allowed_fast: set[int] = set()  # pieces that it gives us though it chokes us
        self.granted_fast: set[int] = set()  # and we to it
        self.outstanding: dict[tuple[int, int], int] = {}  # our requests: (piece, begin) -> length
        self.says: dict[bytes, Value] = {}  # its extension handshake
        self.nonsense = 0
        self._cancelled: set[tuple[int, int]] = set()  # an answer may still come
        self._early: list[int] | bytes | bool | None = None  # what it has, before we know a shape
        self._told = False  # whether its first message, which alone may be a bitfield, has come
        self._extra = dict(extension_handshake or {})
        self._theirs: dict[bytes, int] = {}  # numbers under which it wants extensions
        self._data = bytearray(BUFFER)
        self._view = memoryview(self._data)
        self._begin = self._end = 0
        self._out: list[bytes] = []
        self.since = self.heard = self.sent = now
        self.partial_since: float | None = None
        if caller:
            self._out.append(ours.encode())

    def __repr__(self) -> str:
        flags = "".join(
            flag
            for flag, true in (
                ("i", self.am_interested),
                ("C", self.am_choking),
                ("I", self.peer_interested),
                ("c", self.peer_choking),
            )
            if true
        )
        name = self.peer_id[:8].decode("ascii", "replace") or "?"
        return f"<PeerConnection {name} {flags or '-'} asked={len(self.outstanding)}>"

    # -- bytes

    def buffer(self) -> memoryview:
        """Where the next bytes are to be written. Views in earlier events end here."""
        if self._begin:
            rest = self._end - self._begin
            self._data[:rest] = self._data[self._begin : self._end]
            self._begin, self._end = 0, rest
        return self._view[self._end :]

    def feed(self, data: bytes | memoryview, now: float) -> list[events.Event]:
        """The same for bytes that lie elsewhere: at most BUFFER / 2 at a time."""
        self.buffer()[: len(data)] = data
        return self.received(len(data), now)

    def received(self, count: int, now: float) -> list[events.Event]:
        """So many bytes were written to `buffer`; raises ProtocolViolation."""
        self._end += count
        self.heard = now
        found: list[events.Event] = []
        if not self.open and not self._shake(found, now):
            return found
        data, at, end = self._data, self._begin, self._end
        try:
            while end - at >= 4:
                (length,) = messages.ONE.unpack_from(data, at)
                if length > 9 + BLOCK:
                    self._refuse_long(length)
                if end - at - 4 < length:
                    break
                if length == 0:
                    at += 4  # a keep-alive
                    continue
                start = at + 4
                at = start + length
                if data[start] == messages.PIECE:
                    self._block(start, at, found)
                else:
                    self._message(data[start], self._view[start + 1 : at], found)
        finally:
            if at == end:
                self.partial_since = None
            elif self.partial_since is None or at != self._begin:
                self.partial_since = now
            self._begin = at
        return found

    def take_output(self) -> list[bytes]:
        """What is to be sent, in order."""
        out, self._out = self._out, []
        return out

    @property
    def has_output(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._out)

    def overdue(self, now: float) -> str:
        """Why this peer has had time enough; "" if it has not."""
        if not self.open:
            return "no handshake" if now - self.since > HANDSHAKE_S else ""
        if self.partial_since is not None and now - self.partial_since > MESSAGE_S:
            return "it takes too long over a message"
        return "it is silent" if now - self.heard > IDLE_S else ""

    def _shake(self, found: list[events.Event], now: float) -> bool:
        have = bytes(self._data[self._begin : self._end][: messages.HANDSHAKE_SIZE])
        if not messages.PROTOCOL.startswith(have[: len(messages.PROTOCOL)]):
            raise ProtocolViolation("that is not the BitTorrent protocol")
        if len(have) < messages.HANDSHAKE_SIZE:
            return False
        theirs = Handshake.decode(have)
        if theirs.info_hash != self.ours.info_hash:
            raise ProtocolViolation("it wants another torrent")
        if theirs.peer_id == self.ours.peer_id:
            raise ProtocolViolation("that is ourselves")
        self._begin += messages.HANDSHAKE_SIZE
        self.peer_id = theirs.peer_id
        self.fast = theirs.fast and self.ours.fast
        self.extensions = theirs.extensions and self.ours.extensions
        self.open = True
        if not self.caller:
            self._out.append(self.ours.encode())
        if self.extensions:
            self.tell_extensions({})
        found.append(events.Shook(theirs))
        return True

    def _refuse_long(self, length: int) -> None:
        count = self.shape.count if self.shape else PIECES_MAX
        longest = max(9 + BLOCK, EXTENDED_MAX, 1 + -(-count // 8))
        if length > longest:
            raise ProtocolViolation(f"a message of {length} bytes")

    def _block(self, start: int, end: int, found: list[events.Event]) -> None:
        if end - start < 9:
            raise ProtocolViolation("a piece message without a piece")
        self._told = True
        _, piece, begin = messages.BLOCK_AT.unpack_from(self._data, start - 3)
        key = (piece, begin)
        length = self.outstanding.pop(key, None)
        if length is None:
            if key in self._cancelled:
                self._cancelled.discard(key)
            elif self.fast:
                raise ProtocolViolation("a block that nobody asked for")
            else:
                self._nonsense("blocks that nobody asked for")
        elif length != end - start - 9:
            raise ProtocolViolation(f"a block of {end - start - 9} bytes, not {length}")
        else:
            found.append(events.Block(piece, begin, self._view[start + 9 : end]))

    def _nonsense(self, what: str) -> None:
        self.nonsense += 1
        if self.nonsense > NONSENSE_MAX:
            raise ProtocolViolation(f"too many {what}")

    # -- messages in

    def _message(self, kind: int, payload: memoryview, found: list[events.Event]) -> None:
        size = _MIN_PAYLOAD.get(kind)
        if size is not None and len(payload) != size:
            raise ProtocolViolation(f"message {kind} with {len(payload)} bytes, not {size}")
        if kind in _FAST and not self.fast:
            raise ProtocolViolation(f"message {kind} of the fast extension, which is not agreed on")
        first, self._told = not self._told, self._told or kind not in (messages.EXTENDED, 9)
        if kind in (messages.BITFIELD, messages.HAVE_ALL, messages.HAVE_NONE):
            if first:
                self._map(kind, payload)
                found.append(events.HasMap())
            elif kind == messages.BITFIELD:
                self._more(payload, found)
            else:
                raise ProtocolViolation("what it has may be told once, and first")
        elif kind <= messages.NOT_INTERESTED:
            self._flag(kind, found)
        elif kind in (messages.HAVE, messages.SUGGEST, messages.ALLOWED_FAST):
            self._about_piece(kind, messages.ONE.unpack(payload)[0], found)
        elif kind in (messages.REQUEST, messages.CANCEL, messages.REJECT):
            piece, begin, length = messages.BLOCK_AT.unpack(payload)
            self._about_block(kind, (piece, begin), length, found)
        elif kind == messages.EXTENDED:
            self._extended(bytes(payload), found)
        # Others are of extensions that we have not agreed on, and may be skipped: BEP 3.

    def _flag(self, kind: int, found: list[events.Event]) -> None:
        if kind == messages.CHOKE:
            self.peer_choking = True
            # With the fast extension each request is still answered, by a reject at least.
            dropped = [] if self.fast else list(self.outstanding)
            for key in dropped:
                del self.outstanding[key]
                self._late(key)
            found.append(events.Choked(dropped))
        elif kind == messages.UNCHOKE:
            self.peer_choking = False
            found.append(events.Unchoked())
        else:
            self.peer_interested = kind == messages.INTERESTED
            found.append(events.Interest(self.peer_interested))

    def _map(self, kind: int, payload: memoryview) -> None:
        if self.shape is None:
            if len(payload) > PIECES_MAX // 8:
                raise ProtocolViolation(f"a bitfield of {len(payload)} bytes")
            self._early = bytes(payload) if kind == messages.BITFIELD else kind == messages.HAVE_ALL
        elif kind == messages.BITFIELD:
            self.have = messages.unpack_bits(payload, self.shape.count)
        elif kind == messages.HAVE_ALL:
            self.have = bytearray(b"\1" * self.shape.count)

    def _more(self, payload: memoryview, found: list[events.Event]) -> None:
        """A bitfield that is not first stands for many haves: aria2 sends such."""
        if self.shape is None:
            return
        haves = messages.unpack_bits(payload, self.shape.count)
        piece = haves.find(1)
        while piece >= 0:
            if not self.have[piece]:
                self.have[piece] = 1
                found.append(events.Has(piece))
            piece = haves.find(1, piece + 1)

    def _about_piece(self, kind: int, piece: int, found: list[events.Event]) -> None:
        if self.shape is None:
            if kind == messages.HAVE:
                self._early_have(piece)
            return
        if piece >= self.shape.count:
            raise ProtocolViolation(f"piece {piece} of {self.shape.count}")
        if kind == messages.HAVE:
            if not self.have[piece]:
                self.have[piece] = 1
                found.append(events.Has(piece))
        elif kind == messages.ALLOWED_FAST and len(self.allowed_fast) < ALLOWED_MAX:
            self.allowed_fast.add(piece)

    def _early_have(self, piece: int) -> None:
        if piece >= PIECES_MAX:
            raise ProtocolViolation(f"piece {piece}")
        if self._early is None or self._early is False:
            self._early = [piece]
        elif isinstance(self._early, list):
            self._early.append(piece)
            if len(self._early) > PIECES_MAX:
                raise ProtocolViolation("more haves than pieces")
        elif isinstance(self._early, bytes) and piece >> 3 < len(self._early):
            bits = bytearray(self._early)
            bits[piece >> 3] |= 0x80 >> (piece & 7)
            self._early = bytes(bits)

    def learn(self, shape: Shape) -> None:
        """The metadata has come: what the peer has told before is read now, and checked."""
        self.shape = shape
        self.have = bytearray(shape.count)
        early, self._early = self._early, None
        if early is True:
            self.have = bytearray(b"\1" * shape.count)
        elif isinstance(early, bytes):
            self.have = messages.unpack_bits(early, shape.count)
        elif isinstance(early, list):
            for piece in early:
                if piece >= shape.count:
                    raise ProtocolViolation(f"piece {piece} of {shape.count}")
                self.have[piece] = 1

    def _about_block(
        self, kind: int, key: tuple[int, int], length: int, found: list[events.Event]
    ) -> None:
        piece, begin = key
        if kind == messages.REJECT:
            if self.outstanding.pop(key, None) is not None:
                found.append(events.Rejected(piece, begin))
            elif key in self._cancelled:
                self._cancelled.discard(key)
            else:
                raise ProtocolViolation("it rejects what nobody asked for")
            return
        if self.shape is None or piece >= self.shape.count:
            raise ProtocolViolation(f"a request for piece {piece}")
        if not 0 < length <= BLOCK or begin + length > self.shape.piece_size(piece):
            raise ProtocolViolation(f"a request for {length} bytes at {begin} of piece {piece}")
        make = events.Request if kind == messages.REQUEST else events.Cancel
        found.append(make(piece, begin, length))

    def _extended(self, payload: bytes, found: list[events.Event]) -> None:
        if not self.extensions or not payload:
            raise ProtocolViolation("an extended message, and no extensions are agreed on")
        number, body = payload[0], payload[1:]
        if number:
            if (name := OFFERED.get(number)) is not None:
                found.append(events.Extension(name, body))
            return
        try:
            says, _ = decode_prefix(body)
        except Malformed as error:
            raise ProtocolViolation(f"its extension handshake: {error}") from None
        if not isinstance(says, dict):
            raise ProtocolViolation("its extension handshake is no dictionary")
        offered = says.get(b"m", {})
        if isinstance(offered, dict):
            for name, wanted in offered.items():
                if isinstance(wanted, int) and 0 <= wanted < 256 and name in OFFERED.values():
                    self._theirs[name] = wanted
        self.says.update((key, says[key]) for key in (b"p", b"v", b"reqq", b"metadata_size")
                         if key in says)  # fmt: skip
        found.append(events.ExtensionHandshake(says))

    # -- messages out

    def tell_extensions(self, more: Mapping[bytes, Value]) -> None:
        """Send our extension handshake, with `more` in it."""
        self._extra |= more
        wanted: Value = {name: number for number, name in OFFERED.items()}
        ours: dict[bytes, Value] = {
            b"m": wanted,
            b"reqq": REQUESTS_MAX,
            b"v": messages.VERSION,
            **self._extra,
        }
        self._out.append(messages.extended(0, encode(ours)))

    def understands(self, name: bytes) -> bool:
        """Whether the peer wants messages of that extension."""
        return self._theirs.get(name, 0) > 0

    def extension(self, name: bytes, payload: bytes) -> None:
        """Send a message of an extension that the peer understands."""
        self._out.append(messages.extended(self._theirs[name], payload))

    def tell_all(self, have: bytearray) -> None:
        """Our first message: what we have."""
        if self.fast and 0 not in have and have:
            self._out.append(messages.simple(messages.HAVE_ALL))
        elif self.fast and 1 not in have:
            self._out.append(messages.simple(messages.HAVE_NONE))
        elif 1 in have:
            self._out.append(messages.bitfield(have))

    def tell_have(self, piece: int) -> None:
        """We have one more, and it is verified."""
        self._out.append(messages.indexed(messages.HAVE, piece))

    def choke(self, choking: bool) -> None:
        """Choke or unchoke."""
        if choking != self.am_choking:
            self.am_choking = choking
            self._out.append(messages.simple(messages.CHOKE if choking else messages.UNCHOKE))

    def interest(self, interested: bool) -> None:
        """Say whether we want something."""
        if interested != self.am_interested:
            self.am_interested = interested
            kind = messages.INTERESTED if interested else messages.NOT_INTERESTED
            self._out.append(messages.simple(kind))

    def request(self, piece: int, begin: int, length: int) -> None:
        """Ask for a block."""
        self.outstanding[piece, begin] = length
        self._cancelled.discard((piece, begin))
        self._out.append(messages.ASK.pack(13, messages.REQUEST, piece, begin, length))

    def cancel(self, piece: int, begin: int) -> None:
        """Take a request back; what comes of it nevertheless is dropped."""
        length = self.outstanding.pop((piece, begin), None)
        if length is not None:
            self._late((piece, begin))
            self._out.append(messages.about_block(messages.CANCEL, piece, begin, length))

    def _late(self, key: tuple[int, int]) -> None:
        # Bounded: with a peer that never answers, the oldest are not worth remembering.
        if len(self._cancelled) > 4 * REQUESTS_MAX:
            self._cancelled.clear()
        self._cancelled.add(key)

    def reject(self, piece: int, begin: int, length: int) -> None:
        """Say that a request will not be answered, if the peer can be told."""
        if self.fast:
            self._out.append(messages.about_block(messages.REJECT, piece, begin, length))

    def allow_fast(self, pieces: list[int]) -> None:
        """Pieces that the peer may have though it is choked."""
        if self.fast:
            self.granted_fast.update(pieces)
            self._out += [messages.indexed(messages.ALLOWED_FAST, piece) for piece in pieces]

    def keep_alive(self, now: float) -> None:
        """Say something if nothing else was said for long."""
        if self.open and now - self.sent > KEEP_ALIVE_S:
            self._out.append(messages.KEEP_ALIVE)
