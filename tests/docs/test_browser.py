"""The page that runs minidl in the browser: its blocks, its packages, and the archive that it unpacks."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs.extensions.browser import write_package

ROOT = Path(__file__).parents[2]
WORKER = (ROOT / "docs/static/browser_worker.js").read_text()


def test_it_loads_what_minidl_depends_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", name)[0] for name in project["dependencies"]}
    assert set(re.findall(r'"(\w+)"', re.search(r"PACKAGES = \[(.*?)\]", WORKER)[1])) == needed


def test_the_archive_holds_the_whole_package(tmp_path):
    import zipfile

    write_package(tmp_path / "minidl.zip")
    again = tmp_path / "again" / "minidl.zip"
    write_package(again)
    assert again.read_bytes() == (tmp_path / "minidl.zip").read_bytes()
    zipfile.ZipFile(again).extractall(tmp_path / "unpacked")
    files = {path.relative_to(ROOT) for path in ROOT.glob("minidl/**/*.py")}
    assert {path.relative_to(tmp_path / "unpacked") for path in tmp_path.glob("unpacked/**/*.py")} == files
    program = "import minidl as dl; print(dl.__file__); dl.compile(dl.exp)(dl.ones(3))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "unpacked")}
    out = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment, cwd=tmp_path)
    assert out.startswith(str(tmp_path / "unpacked"))


@pytest.mark.skipif(os.name != "posix", reason="Pyodide's Python is a POSIX one")
def test_its_blocks_run_where_nothing_can_be_started(tmp_path):
    import matplotlib.font_manager  # noqa: F401  # keeps a list of fonts, for which some versions start a thread

    page = (ROOT / "docs/guides/browser.md").read_text()
    blocks = re.findall(
        r"^```\{code-block\} python\n:class: in-browser\n\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 5
    begin = "from tests.processes import like_a_browser\nlike_a_browser.begin()\n"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        "MPLBACKEND": "agg",
        "OPENBLAS_NUM_THREADS": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + "\n".join(blocks)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "this system starts no others" in ended.stdout
    assert "NumPy kernels (there is no C compiler), 1 thread(s)" in ended.stdout
    assert float(re.search(r"'accuracy': ([\d.]+)", ended.stdout)[1]) > 0.6
