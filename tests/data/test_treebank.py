import os
import zipfile
from pathlib import Path

import numpy
import pytest

from minidl.data import penn_treebank
from tests.data.test_idx import SHARED

ARCHIVE = SHARED / "ptb" / "ptb.zip"
needs_ptb = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="the Penn Treebank is not there; MINIDL_SHARED_DATA can name its parent"
)
LINES = {"train": "the cat sat\n the <unk> sat\n", "valid": " the cat\n", "test": " a cat\n sat\n"}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A text that is read as if it were the whole one."""
    import sys

    module = sys.modules["minidl.data.treebank"]
    monkeypatch.setattr(module, "TOKENS", {"train": 8, "valid": 3, "test": 4})
    monkeypatch.setattr(module, "KINDS", 5)

    def write(**changed):
        for part, text in (LINES | {"test": " the cat\n\n"} | changed).items():
            (tmp_path / f"ptb.{part}.txt").write_text(text)
        return tmp_path

    return write


def test_numbers_of_words(small):
    train, valid, test, vocabulary = penn_treebank(small())
    assert vocabulary.decode(train) == ["the", "cat", "sat", "<eos>", "the", "<unk>", "sat", "<eos>"]
    assert vocabulary.decode(valid) == ["the", "cat", "<eos>"]
    assert vocabulary.decode(test) == ["the", "cat", "<eos>", "<eos>"]
    assert train.dtype == numpy.int32
    assert vocabulary.tokens == ("<eos>", "sat", "the", "<unk>", "cat")


def test_a_data_folder_and_an_archive(small, tmp_path):
    expected = penn_treebank(small())
    folder = tmp_path / "simple-examples" / "data"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "ptb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tmp_path.glob("ptb.*.txt"):
            archive.write(path, f"some/folder/{path.name}")
            path.rename(folder / path.name)
    for path in (folder.parent, tmp_path / "ptb.zip"):
        for ours, theirs in zip(penn_treebank(path)[:3], expected[:3], strict=True):
            numpy.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"valid": "the cat"}, r"valid has 2 tokens, not 3 \(the last line has no end"),
        ({"valid": "the cat <eos>\n"}, r"valid has 4 tokens, not 3 \(the ends of sentences are marked"),
        ({"train": "t h e _ c a t\n"}, r"train has 8 .*|train has 7 kinds of tokens, not 5"),
        ({"test": "the dog\n\n"}, "test has 1 words that train has not, such as 'dog'"),
        ({"train": "the cat sat\n the a sat b\n"}, r"train has 9 tokens, not 8; .*kinds"),
    ],
)
def test_another_text_is_refused(small, changed, message):
    with pytest.raises(ValueError, match=f"is not Mikolov's Penn Treebank: .*{message}"):
        penn_treebank(small(**changed))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no ptb.train.txt in"):
        penn_treebank(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder or archive"):
        penn_treebank(tmp_path / "missing")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(FileNotFoundError, match=r"there is no ptb.train.txt in"):
        penn_treebank(tmp_path / "empty.zip")


def test_damaged_archives(tmp_path):
    path = tmp_path / "ptb.zip"
    path.write_bytes(b"PK\3\4 but no archive")
    with pytest.raises(ValueError, match=r"ptb\.zip is no zip archive"):
        penn_treebank(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ptb.train.txt", os.urandom(3000))
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + bytes(20) + whole[520:])
    with pytest.raises(ValueError, match=r"ptb\.zip"):
        penn_treebank(path)


def test_an_archive_that_unpacks_to_very_much_is_refused(tmp_path):
    path = tmp_path / "ptb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ptb.train.txt", b"a\n" * 15_000_000)
    with pytest.raises(ValueError, match="takes 30,000,000 bytes: it is another file"):
        penn_treebank(path)


def test_no_text(small):
    folder = small()
    Path(folder / "ptb.test.txt").write_bytes(b"\xa2\xff")
    with pytest.raises(ValueError, match=r"ptb\.test\.txt holds no text in UTF-8"):
        penn_treebank(folder)


@needs_ptb
def test_the_whole_treebank():
    treebank = penn_treebank(ARCHIVE)
    assert [len(part) for part in treebank] == [929_589, 73_760, 82_430, 10_000]
    first = " ".join(treebank.vocabulary.decode(treebank.valid[:8]))
    assert first == "consumers may want to move their telephones a"
    assert treebank.vocabulary.tokens[:3] == ("the", "<unk>", "<eos>")
