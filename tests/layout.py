"""Look at the layout of a notebook's figures: are axes large enough, and can labels be read?

    python tests/layout.py NOTEBOOK ...

The code of each notebook is executed in this process, in a folder that is a checkout, and the
figures that a cell leaves open are looked at and closed. A line is printed for what is wrong.
"""

import os
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

SMALLEST_SHARE = 0.2  # of the figure, divided by the number of panels side by side


def text_boxes(ax):
    """The labels of axes and of their ticks that are drawn, as (text, box)."""
    labels = [ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
    drawn = [label for label in labels if label.get_visible() and label.get_text()]
    if not ax.axison:
        return []
    return [(label.get_text(), label.get_window_extent()) for label in drawn]


def is_colorbar(ax):
    return ax.get_label() == "<colorbar>"


def small_axes(fig):
    """A sentence for each axes that are narrow or low for their place in the figure."""
    found = []
    for ax in fig.axes:
        place = ax.get_subplotspec()
        if is_colorbar(ax) or place is None:
            continue
        rows, columns = place.get_gridspec().get_geometry()
        box = ax.get_window_extent()
        shares = dict(
            width=box.width / fig.bbox.width * columns / len(place.colspan),
            height=box.height / fig.bbox.height * rows / len(place.rowspan),
        )
        for name, share in shares.items():
            if share < SMALLEST_SHARE:
                found.append(f"axes {ax.get_title()!r} have {share:.0%} of the {name}")
    return found


def covered_labels(fig):
    """A sentence for each label that a legend covers."""
    legends = [ax.get_legend() for ax in fig.axes if ax.get_legend()] + fig.legends
    boxes = [legend.get_window_extent() for legend in legends]
    found = []
    for ax in fig.axes:
        for text, box in text_boxes(ax):
            if any(box.overlaps(legend) for legend in boxes):
                found.append(f"a legend covers {text!r}")
    return found


def layout_problems(fig):
    """What is wrong with a figure's layout, as sentences."""
    fig.canvas.draw()
    return small_axes(fig) + covered_labels(fig)


def check_notebook(path):
    """Execute a notebook's code cells; return what is wrong with its figures."""
    import matplotlib.pyplot as plt
    from house import cells

    plt.close("all")
    names = {"__name__": "__main__", "display": lambda *_: None}
    found = []
    for cell in cells(Path(path)):
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            exec(compile(cell, str(path), "exec"), names)
        for number in plt.get_fignums():
            found += layout_problems(plt.figure(number))
        plt.close("all")
    return found


if __name__ == "__main__":
    import matplotlib

    matplotlib.use("agg")
    warnings.simplefilter("ignore")
    for notebook in sys.argv[1:]:
        for problem in check_notebook(notebook):
            print(f"{Path(notebook).name}: {problem}")
