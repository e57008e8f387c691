"""Sphinx configuration for the pages that `zeroinit.publish.site.write_pages` writes.

The built pages load nothing from other servers.
"""

from pathlib import Path

from docutils.nodes import SkipNode

from zeroinit.publish.site import adapt_to_narrow_screens, mathml

project = "zeroinit"
author = copyright = "The zeroinit authors"
extensions = ["myst_nb"]
exclude_patterns = ["extra"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
myst_update_mathjax = False
nb_execution_mode = "off"  # notebooks come executed
nb_merge_streams = True
nb_render_markdown_format = "myst"
html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = "zeroinit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_use_index = False  # it would be empty
html_theme_options = {
    "repository_url": "https://github.com/zeroinit/zeroinit",
    "use_repository_button": True,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search box is in the margin
}


def formula_visitor(block):
    """Return a docutils visitor that writes a formula as MathML."""

    def visit(self, node):
        self.body.append(mathml(node.astext(), block))
        raise SkipNode

    return visit, None


def adapt_page(app, pagename, templatename, context, doctree):
    """Adapt a page's tables and pictures to narrow screens."""
    if context.get("body"):
        svgs = {p.stem for p in (Path(app.srcdir) / "extra/images").glob("*.svg")}
        context["body"] = adapt_to_narrow_screens(context["body"], pagename, svgs)


def setup(app):
    app.add_html_math_renderer("mathml", formula_visitor(False), formula_visitor(True))
    app.connect("html-page-context", adapt_page)
