"""Peers that mean harm, on real sockets, against our processes: they are closed or banned, and the
content comes from elsewhere."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest
from torrent_roles_kit import HOST, PATIENCE_S, end, tree

from dht.torrent import messages
from dht.torrent.messages import Handshake
from dht.torrent.metainfo import parse


def hello(info_hash, name=b"-XX0000-hostile....."):
    return Handshake(info_hash, name, extensions=False).encode()


def exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


class Liar:
    """Has everything, gives it to anybody, and all of it is zeros."""

    def __init__(self, info_hash):
        self._hello = hello(info_hash)
        self._server = socket.create_server((HOST, 0))
        self.port = self._server.getsockname()[1]
        self.sent = 0
        self.calls = 0
        self.closed = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.calls += 1
                with sock, contextlib.suppress(ConnectionError):
                    sock.settimeout(PATIENCE_S)
                    self._lie(sock)
                self.closed.set()

    def _lie(self, sock):
        exactly(sock, messages.HANDSHAKE_SIZE)
        sock.sendall(self._hello + messages.simple(messages.HAVE_ALL))
        sock.sendall(messages.simple(messages.UNCHOKE))
        while True:
            (length,) = messages.ONE.unpack(exactly(sock, 4))
            body = exactly(sock, length)
            if body[:1] == bytes((messages.REQUEST,)):
                piece, begin, count = messages.BLOCK_AT.unpack(body[1:])
                sock.sendall(messages.block_head(piece, begin, count) + bytes(count))
                self.sent += count

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.mark.timeout(300)
def test_who_sends_wrong_bytes_is_banned_and_all_comes_from_elsewhere(roles, content, tmp_path):
    torrent = roles.torrent(content)
    info = parse(torrent.read_bytes())
    liar = Liar(info.info_hash)
    try:
        got = roles.get(torrent, tmp_path / "out", peer=liar.port)
        says = got.wait_for("status", lambda says: says["banned"] == 1)
        assert says["have"] == 0
        assert liar.closed.wait(PATIENCE_S)
        assert liar.sent >= info.piece_length
        roles.seed(torrent, content, peer=got.port)
        says = got.wait_for("complete")
        assert got.status() == 0
        assert liar.calls == 1  # it was not called again
    finally:
        liar.close()
    assert tree(tmp_path / "out" / content.name) == tree(content)
    assert says["banned"] == 1


MALFORMED = {
    "no handshake of this protocol": (b"", b"GET / HTTP/1.1\r\n\r\n".ljust(68)),
    "another torrent": (b"", hello(bytes(20))),
    "a length of two gigabytes": (None, struct.pack("!IB", 0x7FFFFFFF, messages.PIECE)),
    "a bitfield that is too long": (None, messages.bitfield(bytes(4096))),
    "a piece that there is not": (None, messages.indexed(messages.HAVE, 10**6)),
    "a request of a megabyte": (None, messages.about_block(messages.REQUEST, 0, 0, 1 << 20)),
    "a block that nobody asked for": (None, messages.block_head(0, 0, 16) + bytes(16)),
    "a choke with a payload": (None, struct.pack("!IB", 2, messages.CHOKE) + b"x"),
}


@pytest.mark.timeout(300)
def test_malformed_messages_end_the_connection_and_nothing_else(roles, content, tmp_path):
    torrent = roles.torrent(content)
    info_hash = parse(torrent.read_bytes()).info_hash
    got = roles.get(torrent, tmp_path / "out")
    with socket.create_connection((HOST, got.port), timeout=PATIENCE_S) as decent:
        decent.sendall(hello(info_hash, b"-XX0000-decent......"))
        exactly(decent, messages.HANDSHAKE_SIZE)
        for number, (first, payload) in enumerate(MALFORMED.values()):
            first = hello(info_hash, b"-XX0000-%012d" % number) if first is None else first
            assert is_closed(got.port, first + payload), number
        decent.sendall(messages.KEEP_ALIVE)
        assert still_there(decent)  # who does nothing wrong
    roles.seed(torrent, content, peer=got.port)
    got.wait_for("complete")
    assert got.status() == 0
    assert tree(tmp_path / "out" / content.name) == tree(content)


def still_there(sock):
    """Whether nothing more comes, which is not the end."""
    sock.settimeout(0.2)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return True
    return False


def is_closed(port, payload):
    """Whether a caller that says this is hung up on, before it has the patience to wait longer."""
    with socket.create_connection((HOST, port), timeout=PATIENCE_S) as sock:
        try:
            sock.sendall(payload)
            while sock.recv(4096):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_who_sends_a_byte_a_second_is_ended_and_keeps_nobody_out(roles, content, tmp_path):
    """Forty callers with half a handshake each; the download passes them by."""
    torrent = roles.torrent(content)
    got = roles.get(torrent, tmp_path / "out", seed=True)
    first = hello(parse(torrent.read_bytes()).info_hash)
    slow = [socket.create_connection((HOST, got.port), timeout=PATIENCE_S) for _ in range(40)]
    try:
        roles.seed(torrent, content, peer=got.port)
        began, at = time.monotonic(), 0
        open_ = list(slow)
        while open_ and time.monotonic() - began < PATIENCE_S:
            for sock in list(open_):
                try:
                    sock.sendall(first[at : at + 1])
                except ConnectionError:
                    open_.remove(sock)
            at += 1
            time.sleep(1)
        assert not open_
        assert at < len(first)  # none has come to the end of its handshake
        got.wait_for("complete")
    finally:
        for sock in slow:
            sock.close()
    assert tree(tmp_path / "out" / content.name) == tree(content)
    assert end(got) == 0
