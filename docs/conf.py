"""The settings of the site that `make docs` builds: Sphinx, MyST-NB and Furo, and hooks of our own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # `tests.reference_page`, and the hooks
os.environ["PYTHONPATH"] = str(HERE.parent)  # of the kernels that run the chapters
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a word of theirs on stderr would end the build

import tinygrad_rnn as tr  # noqa: E402 (what stands above must be set first)

project = "tinygrad_rnn"
author = "The tinygrad_rnn authors"
project_copyright = author
release = version = tr.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "_hooks.api",
    "_hooks.cells",
    "_hooks.docstrings",
    "_hooks.play",
    "_hooks.mathml",
]
exclude_patterns = ["_build", "_hooks"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # as a code host has them
nb_execution_mode = "force"  # what is kept would not notice that the library has changed
nb_execution_raise_on_error = True
nb_execution_timeout = 60
nb_execution_show_tb = True
nb_output_stderr = "error"
nb_merge_streams = True

autodoc_typehints = "none"
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "furo"
html_title = "tinygrad_rnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which a browser refuses where a page is a file
html_show_sphinx = False
html_show_copyright = False
pygments_style = "tango"
pygments_dark_style = "monokai"
