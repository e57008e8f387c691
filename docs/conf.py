"""How Sphinx builds the site from what `zeroinit.publish.site.pages` put together. Nothing that it makes loads anything from elsewhere."""

from pathlib import Path

from docutils.nodes import SkipNode

from zeroinit.publish.site import dressed, mathml

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


def formula(block):
    """A visitor that writes a formula."""

    def visit(self, node):
        self.body.append(mathml(node.astext(), block))
        raise SkipNode

    return visit, None


def dress(app, pagename, templatename, context, doctree):
    if context.get("body"):
        drawn = {p.stem for p in (Path(app.srcdir) / "extra/images").glob("*.svg")}
        context["body"] = dressed(context["body"], pagename, drawn)


def setup(app):
    app.add_html_math_renderer("mathml", formula(False), formula(True))
    app.connect("html-page-context", dress)
