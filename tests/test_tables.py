import pytest

from minidl.tables import table


def test_columns_are_as_wide_as_their_longest_cell():
    lines = table(["a", "long header", "c"], [["long cell", "b", ""], ["", "", "x"]]).splitlines()
    assert lines == [
        "a          long header  c",
        "long cell  b",
        "                        x",
    ]


def test_the_last_letter_aligns_all_columns_after_it():
    lines = table(["name", "one", "two"], [["x", "1", "22222"]], align="lr").splitlines()
    assert lines == ["name  one    two", "x       1  22222"]


def test_headings_span_the_columns_and_are_not_indented():
    rows = ["FORWARD, a long heading", ["add", "1"], "BACKWARD", ["mul", "10"]]
    assert table(["step", "size"], rows, "lr", indent="  ").splitlines() == [
        "  step  size",
        "FORWARD, a long heading",
        "  add      1",
        "BACKWARD",
        "  mul     10",
    ]


def test_without_rows_the_header_is_left():
    assert table(["a", "b"], []) == "a  b"


def test_a_row_needs_a_cell_for_each_column():
    with pytest.raises(ValueError, match="zip"):
        table(["a"], [["1", "2"]])
