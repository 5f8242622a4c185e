"""Settings of Sphinx; CONTRIBUTING.md has the command that builds the site."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# The notebooks run in processes of their own, which use this tree as well, and one core: on a busy
# machine threads would wait for each other.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import minidl  # noqa: E402

project = "minidl"
author = copyright = "The minidl authors"
version = release = minidl.__version__

extensions = ["myst_nb", "docs.extensions.reference", "docs.extensions.literate", "docs.extensions.browser"]
exclude_patterns = ["_build", "extensions"]
default_role = "code"
nitpicky = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # a result from an older minidl is no result
nb_execution_timeout = 120  # of a cell; a page takes less than 30 s where nothing else runs
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True

python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "minidl"
html_static_path = ["static"]
html_css_files = ["minidl.css"]
html_copy_source = False
html_search_scorer = str(ROOT / "docs" / "search_scorer.js")
html_theme_options = {"top_of_page_buttons": []}
