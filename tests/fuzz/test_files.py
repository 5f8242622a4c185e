"""A few damaged files of each kind; `python -m tests.fuzz.files 20000` tries many."""

import random

import pytest

from tests.fuzz import files


@pytest.mark.parametrize("name", files.KINDS)
def test_damaged_files_are_refused_by_name_or_read_right(name, tmp_path):
    chosen = random.Random(name)
    for i in range(60):
        files.check(name, files.damaged(files.KINDS[name][0], chosen), tmp_path / f"file-{i}")


@pytest.mark.parametrize("name", files.KINDS)
def test_files_that_are_cut_short_anywhere(name, tmp_path):
    content = files.KINDS[name][0]
    for end in range(0, len(content), max(1, len(content) // 60)):
        files.check(name, content[:end], tmp_path / f"file-{end}")
