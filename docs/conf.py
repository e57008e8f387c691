"""How Sphinx builds the site from what `zeroinit.site.pages` put together."""
project = "zeroinit"
author = copyright = "The zeroinit authors"
extensions = ["myst_nb"]
exclude_patterns = ["extra"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks come executed
nb_merge_streams = True
nb_render_markdown_format = "myst"
html_theme = "sphinx_book_theme"
html_title = "zeroinit"
html_extra_path = ["extra"]
html_theme_options = {
    "repository_url": "https://github.com/zeroinit/zeroinit",
    "use_repository_button": True,
    "show_toc_level": 2,
    "home_page_in_toc": True,
}
