"""The lesson can be taught from: narrow code, no assertion in sight, exercises with answers."""

import ast
import re
from pathlib import Path

import nbformat

TOP = Path(__file__).resolve().parent.parent
CELLS = nbformat.read(TOP / "nbs/lesson.ipynb", as_version=4).cells
CODE = [c for c in CELLS if c.cell_type == "code"]
SHOWN = [c.source for c in CODE if not c.source.startswith("#| hide")]
HIDDEN = [c for c in CODE if c.source.startswith("#| hide")]
TEXT = "\n\n".join(c.source for c in CELLS if c.cell_type == "markdown")
ARXIV = re.compile(r"arxiv\.org/abs/(\d{4}\.\d{5})")


def section(heading):
    """The text from a heading to the next one of its level."""
    after = TEXT.partition(f"\n## {heading}\n")[2]
    return after.partition("\n## ")[0]


def test_code_is_narrow_enough_for_a_projector():
    lines = [line for source in SHOWN for line in source.splitlines()]
    assert [line for line in lines if len(line) >= 80] == []


def test_assertions_are_out_of_sight():
    nodes = [node for source in SHOWN for node in ast.walk(ast.parse(source))]
    assert not any(isinstance(node, ast.Assert) for node in nodes)
    assert sum(cell.source.count("assert ") for cell in HIDDEN) > 20
    assert all(cell.metadata.get("jupyter") == {"source_hidden": True} for cell in HIDDEN)


def test_each_part_has_its_minutes_and_a_question_to_guess_at():
    minutes = [int(m) for m in re.findall(r"^\| \d\. .+? \| (\d+) \|", TEXT, re.M)]
    parts = re.findall(r"^## \d\. .+\n\n\*Guess first: .+\?\*$", TEXT, re.M)
    assert len(minutes) == len(parts) == 5
    assert sum(minutes) == 45


def test_exercises_have_folded_answers():
    exercises = re.split(r"^\*\*\d\.\*\* ", section("Exercises"), flags=re.M)[1:]
    *with_answer, own_model = exercises
    assert len(with_answer) >= 5
    for exercise in with_answer:
        # markdown inside HTML needs an empty line before and after it
        assert re.search(r"<details><summary>Answer</summary>\n\n.+\n\n</details>", exercise)
    assert "Your own model" in own_model


def test_it_ends_with_a_summary_and_the_papers_of_the_related_work_page():
    assert len(re.findall(r"^- \*\*", section("Summary"), re.M)) == 5
    page = (TOP / "docs/related.md").read_text()
    numbers = ARXIV.findall(section("Related work"))
    assert len(numbers) == len(set(numbers)) == 13
    assert set(numbers) == set(ARXIV.findall(page))
    assert re.findall(r"\[arXiv (.+?)\]", page) == ARXIV.findall(page)
