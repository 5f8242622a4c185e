"""The picture of the packages shows what the source imports."""

import pytest

from docs import architecture


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "toy"
    sources = {
        "__init__.py": "from toy import top\n",
        "top.py": "from toy.middle import part\nfrom toy.base import one\n",
        "middle/__init__.py": "",
        "middle/part.py": "if TYPE_CHECKING:\n    import toy.top\nimport toy.base\n",
        "base.py": "import os\none = 1\ndef show():\n    from toy import top, middle\n",
        "alone.py": "",
    }
    for name, source in sources.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def test_imports_are_found(package):
    loaded, called, lines = architecture.package_graph(package)
    assert loaded == {"top": {"middle", "base"}, "middle": {"base"}, "base": set()}
    assert called == {"top": set(), "middle": set(), "base": {"top", "middle"}}
    assert lines["top"] == 2


def test_arrows_and_rows(package):
    loaded, _, _ = architecture.package_graph(package)
    graph, box = architecture.condensed(loaded)
    top, middle, base = (box[name] for name in ("top", "middle", "base"))
    assert architecture.reduced(graph) == {top: {middle}, middle: {base}, base: set()}
    assert architecture.rows_of(graph) == [[base], [middle], [top]]
    assert architecture.with_calls(graph, {(base, top)}) == [(base, top)]


def test_what_imports_each_other_shares_a_box():
    graph, _ = architecture.condensed({"a": {"b"}, "b": {"a", "c"}, "c": set()})
    assert graph == {("a", "b"): {("c",)}, ("c",): set()}


def test_the_picture_of_minidl_is_drawn(tmp_path, monkeypatch):
    out = tmp_path / "architecture.png"
    monkeypatch.setattr("sys.argv", ["architecture.py", "--out", str(out)])
    architecture.main()
    assert out.stat().st_size > 20_000
