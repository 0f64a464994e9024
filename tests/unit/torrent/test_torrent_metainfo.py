"""A .torrent: what it says, and all the ways in which a stranger's must not be believed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.torrent import magnet
from dht.torrent.bencode import decode, encode
from dht.torrent.errors import BadTorrent
from dht.torrent.metainfo import (
    CONTENT_MAX,
    PIECE_LENGTH,
    make_info,
    make_torrent,
    parse,
    parse_info,
    piece_length_for,
)

HASH = b"h" * 20


def info(**changes):
    """The dictionary of a good torrent, changed."""
    found = {b"name": b"n", b"piece length": 16384, b"pieces": HASH, b"length": 100}
    for name, value in changes.items():
        key = name.replace("_", " ").encode()
        if value is None:
            del found[key]
        else:
            found[key] = value
    return found


def files(*entries):
    return info(length=None, files=list(entries))


def file(*path, length=50, **more):
    return {b"length": length, b"path": list(path)} | {k.encode(): v for k, v in more.items()}


def torrent(of):
    return encode({b"info": of})


def test_a_single_file():
    found = parse(torrent(info(private=1)))
    assert (found.name, found.length, found.piece_count, found.private) == ("n", 100, 1, True)
    assert found.files[0].path == ("n",)
    assert found.info_hash == hashlib.sha1(encode(info(private=1))).digest()
    assert repr(found).startswith("<Metainfo 'n' ")


def test_the_info_hash_is_over_the_bytes_as_they_came():
    """Even keys that we do not know belong to it."""
    extra = info() | {b"x-unknown": [1, {b"a": b"b"}]}
    assert parse(torrent(extra)).info_hash == hashlib.sha1(encode(extra)).digest()


def test_many_files_lie_one_after_the_other():
    found = parse(torrent(files(file(b"a", length=60), file(b"d", b"b", length=0), file(b"c"))))
    assert [f.path for f in found.files] == [("n", "a"), ("n", "d", "b"), ("n", "c")]
    assert [f.offset for f in found.files] == [0, 60, 60]
    assert found.extents(55, 10) == [(0, 55, 5), (2, 0, 5)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.data())
def test_extents_cover_what_is_asked_and_nothing_else(lengths, data):
    total = sum(lengths)
    if not total:
        return
    entries = [((str(n),), length) for n, length in enumerate(lengths)]
    if len(entries) == 1:
        entries.append((("more",), 0))
    found = parse_info(make_info("n", entries, 4, HASH * -(-total // 4)))
    start = data.draw(st.integers(0, total - 1))
    length = data.draw(st.integers(1, total - start))
    where = [
        found.files[number].offset + begin + k
        for number, begin, size in found.extents(start, length)
        for k in range(size)
    ]
    assert where == list(range(start, start + length))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (info(name=b"/etc"), "lead out of the folder"),
        (info(name=b".."), "lead out of the folder"),
        (info(name=b"."), "lead out of the folder"),
        (info(name=b"a\\b"), "lead out of the folder"),
        (info(name=b"a\0b"), "lead out of the folder"),
        (info(name=b"a\nb"), "lead out of the folder"),
        (info(name=b""), "without a name"),
        (info(name=None), "without a name"),
        (info(name=7), "without a name"),
        (info(name=b"\xff\xfe"), "not UTF-8"),
        (info(name=b"n" * 256), "more than 255"),
        (files(file(b"..", b"passwd")), "lead out of the folder"),
        (files(file(b"a", b"..", b"..", b"b")), "lead out of the folder"),
        (files(file(b"/a")), "lead out of the folder"),
        (files(file(b"a/b")), "lead out of the folder"),
        (files(file(b"")), "without a name"),
        (files(file()), "without a path"),
        (files({b"length": 50}), "without a path"),
        (files(7), "without a path"),
        (files(), "1 to"),
        (files(file(b"a"), file(b"a")), "comes twice"),
        (files(file(b"a"), file(b"a", b"b")), "a file and a folder"),
        (files(file(b"a", attr=b"l")), "symbolic link"),
        (files(file(b"a", length=-1)), "length -1"),
        (files(file(b"a", length=b"9")), "length"),
        (info(length=-5), "length -5"),
        (info(length=CONTENT_MAX + 1), "length"),
        (info(length=0, pieces=b""), "content of 0"),
        (info(length=None), "either a length or"),
        (info() | {b"files": []}, "either a length or"),
        (info(piece_length=0), "piece length"),
        (info(piece_length=-16384), "piece length"),
        (info(piece_length=1 << 40), "piece length"),
        (info(piece_length=None), "piece length"),
        (info(pieces=b"short"), "multiple of 20"),
        (info(pieces=None), "multiple of 20"),
        (info(pieces=HASH * 2), "2 have hashes"),
        (info(length=16385), "are 2 pieces"),
        (info(length=CONTENT_MAX, piece_length=1), "pieces"),
        (info(pieces=None) | {b"meta version": 2, b"file tree": {}}, "version 2"),
    ],
)
def test_refused(bad, why):
    with pytest.raises(BadTorrent, match=why):
        parse(torrent(bad))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"le",
        b"de",
        b"d4:infoi1ee",
        b"d4:infod1:b1:x1:a1:yee",  # keys out of order
        torrent(info())[:-1],
        torrent(info()) + b"x",
        b"d4:info" * 50_000,
    ],
)
def test_what_is_no_torrent_is_refused(data):
    with pytest.raises(BadTorrent):
        parse(data)


def test_pad_files_are_read_and_may_share_a_name():
    pads = files(
        file(b"a", length=10), file(b".pad", b"6", length=6, attr=b"p"),
        file(b"b", length=10), file(b".pad", b"6", length=6, attr=b"p"),
    )  # fmt: skip
    assert [f.pad for f in parse(torrent(pads)).files] == [False, True, False, True]


def test_tiers_come_from_the_list_if_there_is_one():
    data = encode({
        b"announce": b"http://127.0.0.1:1/announce",
        b"announce-list": [[b"http://a", b"http://b"], [], [b"udp://c", 7], b"odd"],
        b"info": info(),
    })  # fmt: skip
    assert parse(data).tiers == (("http://a", "http://b"), ("udp://c",))
    assert parse(encode({b"announce": b"http://a", b"info": info()})).tiers == (("http://a",),)
    assert parse(torrent(info())).tiers == ()


def test_what_is_made_is_read():
    made = make_info("n", [(("a", "b"), 30_000), (("c",), 5)], 16384, HASH * 2, private=True)
    found = parse(make_torrent(made, ["http://a", "udp://b"], "a word"))
    assert found.info == made
    assert found.tiers == (("http://a",), ("udp://b",))
    assert (found.comment, found.private, found.single) == ("a word", True, False)
    assert decode(make_torrent(made))[b"created by"] == b"ringleader"


def test_what_could_not_be_read_is_not_made():
    with pytest.raises(BadTorrent):
        make_info("..", [((), 5)], 16384, HASH)


@pytest.mark.parametrize(
    ("length", "piece_length"),
    [(1, PIECE_LENGTH), (1 << 30, PIECE_LENGTH), (1 << 32, 1 << 20), (1 << 50, 16 << 20)],
)
def test_piece_length(length, piece_length):
    assert piece_length_for(length) == piece_length


class TestMagnet:
    def test_is_read_and_written(self):
        link = magnet.Magnet(b"\x12" * 20, "a name", ("http://127.0.0.1:1/announce",))
        assert magnet.parse(str(link)) == link

    def test_base32_and_peers(self):
        text = f"magnet:?xt=urn:btih:{'CI' * 16}&x.pe=127.0.0.1:6881&tr.1=udp://a"
        found = magnet.parse(text)
        assert len(found.info_hash) == 20
        assert found.peers == (("127.0.0.1", 6881),)
        assert found.trackers == ("udp://a",)

    @pytest.mark.parametrize(
        "text",
        [
            "http://x",
            "magnet:?dn=x",
            "magnet:?xt=urn:btih:12",
            "magnet:?xt=urn:btih:" + "z" * 40,
            "magnet:?xt=urn:btih:" + "!" * 32,
            "magnet:?xt=urn:btmh:1220" + "a" * 64,
            "magnet:?xt=urn:btih:" + "a" * 40 + "&x.pe=nowhere",
        ],
    )
    def test_refused(self, text):
        with pytest.raises(BadTorrent):
            magnet.parse(text)
