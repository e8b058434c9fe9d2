"""Configuration of the documentation; nothing here needs the network."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import linalgk  # noqa: E402

project = "linalgk"
author = "the linalgk developers"
project_copyright = author
version = release = linalgk.__version__

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "matplotlib.sphinxext.plot_directive",
    "generated",
]
root_doc = "index"
exclude_patterns = ["_build", "_generated"]
default_role = "py:obj"
today_fmt = "%Y-%m-%d"

add_module_names = False
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # the docstrings say it with shapes
# its classes are documented also where their base classes are not installed
autodoc_mock_imports = [] if importlib.util.find_spec("torch") else ["torch"]
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# A public name without a docstring, or with parameters that it does not have, ends the build.
numpydoc_validation_checks = {"GL08", "SS01", "PR02", "PR03"}
# constructors are documented in their classes, inherited ones in the class that inherits them
numpydoc_validation_exclude = {r"\.__init__$"}

plot_include_source = False
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = ["svg"]
plot_rcparams = {"figure.figsize": (7.5, 4.2), "font.size": 9, "svg.fonttype": "path"}
plot_apply_rcparams = True

html_theme = "pydata_sphinx_theme"
html_title = "linalgk"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
