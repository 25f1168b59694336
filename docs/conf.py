"""The documentation site: Sphinx with MyST, so that pages are Markdown, and tutorials are run while it is built.

pip install -e '.[docs]' && scripts/check docs
"""

from __future__ import annotations

import sys
from pathlib import Path

import stimkit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

project = "stimkit"
author = copyright = "The stimkit authors"
release = version = stimkit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nitpicky = True
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # a cache would hold what an earlier stimkit printed
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of libraries about what a notebook has not

autodoc_typehints = "none"
autodoc_member_order = "bysource"
copybutton_exclude = ".linenos, .gp"

html_theme = "pydata_sphinx_theme"
html_title = "stimkit"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_sidebars: dict[str, list[str]] = {"index": [], "start": [], "gallery/**": []}
html_theme_options = {
    "logo": {"text": "stimkit"},
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
}

generate.write_pages(HERE)


def _link_within(app: object, name: str, source: list[str]) -> None:
    source[0] = generate.link_within(source[0], name)


def setup(app: object) -> None:
    """Connect what is written above to Sphinx: files of the repository are linked as the pages that they are here."""
    app.connect("source-read", _link_within)  # type: ignore[attr-defined]
