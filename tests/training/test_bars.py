import pytest

from minidl.training import bars


@pytest.mark.parametrize(("terminal", "notebook"), [(False, False), (True, False), (False, True)])
def test_there_is_a_bar_on_a_terminal_and_in_a_notebook(monkeypatch, terminal, notebook):
    monkeypatch.setattr(bars.sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(bars, "in_notebook", lambda: notebook)
    assert bars.has_bar() == (terminal or notebook)


@pytest.mark.parametrize("verbose", [True, False])
def test_items_come_through_with_and_without_a_bar(monkeypatch, capsys, verbose):
    monkeypatch.setattr(bars.sys.stderr, "isatty", lambda: True)
    assert list(bars.with_bar(range(3), 3, "counting", verbose)) == [0, 1, 2]
    output = capsys.readouterr()
    assert output.out == ""
    assert ("counting" in output.err) == verbose
