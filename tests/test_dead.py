"""Every example of docs/dead.md says what the page says."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/dead.md"


def test_every_example_says_what_the_page_says():
    text = PAGE.read_text()
    examples = re.findall(r"```python\n(.*?)```\n+((?:    [^\n]*\n)*)", text, re.S)
    assert len(examples) == 11  # one imports, ten models
    names = {}
    for code, expected in examples:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(code, names)
        lines = [line.removeprefix("    ") for line in expected.splitlines()]
        assert said.getvalue().splitlines() == lines
