"""What README and the other pages name exists: files, tests, public names."""

import re
from pathlib import Path

import pytest

import minidl as dl

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += ["tests/README.md", "tests/COVERAGE.md", "benchmarks/README.md"]
PAGES += [
    str(page.relative_to(ROOT))
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if "_build" not in page.parts
]


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_named_paths_exist(page):
    """Paths in code, as `tests/optimizers` or `minidl/layers/`; <...> stands for any name."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    paths = re.findall(r"`((?:minidl|tests|docs|examples|program)/[\w/.]*)`", text)
    missing = [path for path in paths if not (ROOT / path).exists() and not (ROOT / "minidl" / path).exists()]
    assert not missing


def test_named_tests_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/guides/matlab.md").read_text()))
    assert len(named) > 10
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert not {name for name in named if f"def {name}(" not in sources}


def test_public_names_exist():
    text = "\n".join((ROOT / page).read_text() for page in PAGES if page != "CHANGELOG.md")
    names = set(re.findall(r"(?<![\w.])dl\.(\w+(?:\.\w+)?)", text)) - {"Linear", "sofmax"}
    assert len(names) > 20
    for name in names:
        first, _, second = name.partition(".")
        assert first == "sklearn" or hasattr(dl, first), name  # needs scikit-learn; see test_sklearn.py
        if second and first in ("data", "schedules"):
            assert hasattr(getattr(dl, first), second), name


def test_the_number_of_lines_is_true():
    stated = int(re.search(r"minidl is ([\d,]+) lines", (ROOT / "README.md").read_text())[1].replace(",", ""))
    counted = sum(path.read_text().count("\n") for path in (ROOT / "minidl").rglob("*.py"))
    assert abs(stated - counted) <= 0.1 * counted


#: What makes the examples short: in the text, and here.
SHORTER = {
    "dl.data.digits()": "dl.data.digits(train=320, test=10)",
    "range(30)": "range(2)",
    "[:4000]": "[:256]",
    "[4000:]": "[256:]",
    "fit(x": "fit(verbose=False, epochs=1, x=x",
}


@pytest.mark.slow
def test_the_python_of_the_readme_and_of_checking_runs(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text() + (ROOT / "docs/guides/checking.md").read_text()
    for long, short in SHORTER.items():
        assert long in text, "the text has changed; so must this"
        text = text.replace(long, short)
    text = text.replace("x=x[:256], x[:256]", "x=x[:256], y=x[:256]")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for number, block in enumerate(blocks):
        path = tmp_path / f"block_{number}.py"
        path.write_text(block)
        exec(compile(block, path, "exec"), names)
    first, second = map(float, re.findall(r"^\d (\S+)$", capsys.readouterr().out, flags=re.M))
    assert second < first
    assert len(names["history"].steps["loss"]) == 2
    assert (tmp_path / "training.png").stat().st_size > 1000
    with pytest.raises(
        AssertionError, match=r"likely cause: 'detach' stops the gradient \(block_3\.py, line 8"
    ):
        names["test_standardize"]()
