"""The page that runs minidl in the browser: its package, as a file that the page unpacks for Pyodide."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests need no Sphinx
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]


def write_package(path: Path) -> None:
    """Write minidl's Python files as an archive that is unpacked where Python finds packages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(ROOT.glob("minidl/**/*.py")):
            # The same sources give the same bytes: no times of files, no rights.
            archive.writestr(zipfile.ZipInfo(file.relative_to(ROOT).as_posix()), file.read_bytes(), 8)


def _finish(app: Sphinx, problem: Exception | None) -> None:
    if problem is None and app.builder.format == "html":
        write_package(Path(app.outdir) / "_static" / "minidl.zip")


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to call."""
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
