"""Files and the journal: pieces across borders, links refused, torn tails cut off."""

from __future__ import annotations

import os
import random

import pytest

from dht.torrent.creation import create
from dht.torrent.errors import BadTorrent, StorageError
from dht.torrent.journal import MAGIC, RECORD, Journal
from dht.torrent.metainfo import make_info, parse_info
from dht.torrent.storage import Storage, block_hashes, sha1

PIECE = 16_384
HASH = b"i" * 20


def album(folder, lengths=(20_000, 0, 1, 40_000)):
    """A folder of content, and its metainfo."""
    rng = random.Random(1)
    root = folder / "album"
    for number, length in enumerate(lengths):
        path = root / ("d" * (number % 2) or ".") / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(length))
    return parse_info(create(root, piece_length=PIECE))


class TestStorage:
    def test_what_is_written_is_read_wherever_borders_lie(self, tmp_path):
        info = album(tmp_path)
        source, target = Storage(info, tmp_path), Storage(info, tmp_path / "out")
        for piece in reversed(range(info.piece_count)):
            target.write(piece, memoryview(source.read(piece)))
        target.make_empty_files()
        for number, file in enumerate(info.files):
            assert target.path(number).read_bytes() == source.path(number).read_bytes()
            assert target.path(number).stat().st_size == file.length
        assert target.verify(list(range(info.piece_count))) == b"\1" * info.piece_count
        for storage in (source, target):
            storage.close()

    def test_what_the_kernel_has_is_read_at_once(self, tmp_path):
        info = album(tmp_path)
        storage = Storage(info, tmp_path)
        for piece in range(info.piece_count):
            assert storage.read_now(piece) == storage.read(piece)
        assert Storage(info, tmp_path / "nowhere").read_now(0) is None
        storage.close()

    def test_damage_and_absence_are_seen(self, tmp_path):
        info = album(tmp_path)
        storage = Storage(info, tmp_path)
        last = bytearray(storage.path(3).read_bytes())
        last[-1] ^= 1
        storage.path(3).write_bytes(last)
        storage.path(0).unlink()
        have = storage.verify(list(range(info.piece_count)))
        assert have[0] == have[1] == have[-1] == 0
        assert have.count(1) == info.piece_count - 3
        with pytest.raises(StorageError, match="No such file"):
            storage.read(0)
        storage.close()

    def test_a_file_that_is_too_short_is_an_error_that_names_it(self, tmp_path):
        info = album(tmp_path)
        storage = Storage(info, tmp_path)
        os.truncate(storage.path(3), 100)
        with pytest.raises(StorageError, match="ends at"):
            storage.read(info.piece_count - 1)
        assert storage.read_now(info.piece_count - 1) is None
        storage.close()

    @pytest.mark.parametrize("where", ["album", "album/d", "album/d/3"])
    def test_links_are_not_followed(self, tmp_path, where):
        info = album(tmp_path)
        elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
        elsewhere.mkdir()
        link = out / where
        link.parent.mkdir(parents=True)
        link.symlink_to(elsewhere / "file" if where.endswith("3") else elsewhere)
        source, target = Storage(info, tmp_path), Storage(info, out)
        with pytest.raises(StorageError):
            target.write(info.piece_count - 1, memoryview(source.read(info.piece_count - 1)))
        assert list(elsewhere.iterdir()) == []
        source.close()
        target.close()

    def test_pads_are_zeros_and_not_on_disk(self, tmp_path):
        from dht.torrent.bencode import encode

        content = b"a" * 10 + bytes(6) + b"b" * 10
        info = parse_info(encode({
            b"files": [
                {b"length": 10, b"path": [b"a"]},
                {b"attr": b"p", b"length": 6, b"path": [b".pad", b"6"]},
                {b"length": 10, b"path": [b"b"]},
            ],
            b"name": b"n", b"piece length": 26, b"pieces": sha1(content),
        }))  # fmt: skip
        storage = Storage(info, tmp_path)
        storage.write(0, memoryview(content))
        assert storage.read(0) == content
        assert sorted(path.name for path in (tmp_path / "n").iterdir()) == ["a", "b"]
        storage.close()

    def test_many_files_do_not_stay_open(self, tmp_path):
        info = album(tmp_path, lengths=[100] * 200)
        storage = Storage(info, tmp_path)
        assert storage.verify(list(range(info.piece_count))).count(1) == info.piece_count
        assert len(storage._open) <= 64
        storage.close()

    def test_block_hashes(self):
        data = memoryview(bytes(PIECE) + b"x")
        assert block_hashes(data) == {0: sha1(bytes(PIECE)), PIECE: sha1(b"x")}


class TestCreation:
    def test_the_same_content_has_the_same_name(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        assert album(tmp_path / "a").info_hash == album(tmp_path / "b").info_hash

    def test_links_are_left_out(self, tmp_path):
        info = album(tmp_path)
        (tmp_path / "album" / "link").symlink_to("/etc/hostname")
        assert create(tmp_path / "album", piece_length=PIECE) == info.info

    def test_nothing_is_refused(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(BadTorrent, match="no content"):
            create(tmp_path / "empty")
        with pytest.raises(StorageError, match="no such file"):
            create(tmp_path / "nowhere")


class TestJournal:
    def journal(self, tmp_path, info_hash=HASH):
        return Journal(tmp_path / "j", info_hash, 100)

    def test_names_what_was_written(self, tmp_path):
        journal = self.journal(tmp_path)
        assert journal.open() is None
        journal.add([5, 3])
        journal.add([7])
        journal.close()
        again = self.journal(tmp_path)
        assert again.open() == [3, 5, 7]
        again.add([3, 5, 7])
        again.close()
        assert (tmp_path / "j").stat().st_size == len(MAGIC) + 20 + 3 * RECORD.size

    @pytest.mark.parametrize("cut", range(1, RECORD.size))
    def test_a_torn_tail_is_cut_off(self, tmp_path, cut):
        journal = self.journal(tmp_path)
        journal.open()
        journal.add([1, 2, 3])
        journal.close()
        os.truncate(tmp_path / "j", (tmp_path / "j").stat().st_size - cut)
        again = self.journal(tmp_path)
        assert again.open() == [1, 2]
        again.close()

    @pytest.mark.parametrize(
        "tail", [bytes(8), b"\xff" * 8, RECORD.pack(1, 1), b"junk that is no record at all"]
    )
    def test_a_foreign_tail_names_nothing(self, tmp_path, tail):
        journal = self.journal(tmp_path)
        journal.open()
        journal.add([9])
        journal.close()
        with (tmp_path / "j").open("ab") as file:
            file.write(tail)
        again = self.journal(tmp_path)
        assert again.open() == [9]
        again.close()

    def test_another_torrents_journal_is_none(self, tmp_path):
        journal = self.journal(tmp_path)
        journal.open()
        journal.add([1])
        journal.close()
        other = self.journal(tmp_path, b"o" * 20)
        assert other.open() is None
        other.close()

    def test_is_one_process_s(self, tmp_path):
        journal = self.journal(tmp_path)
        journal.open()
        with pytest.raises(StorageError, match="another process"):
            self.journal(tmp_path).open()
        journal.close()


def test_a_made_info_is_the_content(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 20_000)
    hashes = sha1(b"x" * PIECE) + sha1(b"x" * (20_000 - PIECE))
    assert create(tmp_path / "f", piece_length=PIECE) == make_info(
        "f", [((), 20_000)], PIECE, hashes
    )
