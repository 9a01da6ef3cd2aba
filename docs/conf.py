"""How Sphinx makes the site of these pages: `make docs`. Nothing is fetched while it is made, and nothing when it is read."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import limbeck  # noqa: E402

project, author = "Limbeck", "The Limbeck authors"
release = version = limbeck.__version__
copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "mathml"]
exclude_patterns = ["_ext", "_static"]
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
default_role = "code"  # what stands between backticks in docstrings
html_math_renderer = "mathml"
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Types of other libraries, and of rooms of the package that are not public, are named and not linked.
nitpick_ignore_regex = [(r"py:.*", r"(?!limbeck\.[A-Za-z_]+$).*")]

html_theme = "furo"
html_title = "Limbeck"
html_static_path = ["_static"]
html_css_files = ["limbeck.css"]
html_show_search_summary = False  # a page that is opened as a file may not fetch others
html_copy_source = html_show_sourcelink = html_show_copyright = False


def public(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement) -> nodes.Element | None:
    """A reference to where a public name lives leads to where it is documented, `limbeck.NAME`."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in limbeck.__all__:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"limbeck.{name}", node, text)  # type: ignore[no-any-return]


def letters(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A sentence that is one letter (`K.`) is no item of a list."""
    lines[:] = [re.sub(r"(^\s*|: )([A-Z])\.(?=\s|$)", r"\1\\\2.", line) for line in lines]


def accessible(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """What scrolls can be reached by keys, and what is called a heading has a level."""
    body = re.sub(r'<(pre|div class="(?:table-wrapper|equation)[^"]*")', r'<\1 tabindex="0"', context.get("body", ""))
    tree = context.get("furo_navigation_tree", "")
    context |= {"body": body, "furo_navigation_tree": tree.replace('role="heading"', 'role="heading" aria-level="2"')}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("missing-reference", public)
    app.connect("autodoc-process-docstring", letters, priority=600)  # after napoleon
    app.connect("html-page-context", accessible, priority=900)  # after furo
    return {"parallel_read_safe": True}
