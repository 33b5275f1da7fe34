"""Sphinx configuration; built with ``tox run -e docs``, warnings are errors."""

from importlib.metadata import version as installed_version

project = "Flask-HashFS"
author = "The Flask-HashFS maintainers"
copyright = f"2026, {author}"
release = installed_version("Flask-HashFS")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

copybutton_prompt_text = "$ "  # of a console, whose output is left out too
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
pygments_dark_style = "github-dark"  # the default underlines each imported module
html_title = f"Flask-HashFS {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"
# Built without the network, so other projects' names are not links.
nitpick_ignore_regex = [("py:.*", r"(?!flask_hashfs).*|flask_hashfs\._.*")]
