"""How the library reads, in numbers: `python tests/measures.py [FILE ...]`.

Without a file, all modules of zeroinit/ are measured. Counted over code lines: without docstrings,
comments, empty lines, and the `__all__` that nbdev writes at the top of a module.
"""

import ast
import io
import sys
import tokenize
from dataclasses import dataclass, fields
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent.parent / "zeroinit"
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LIMITS = {  # per 1,000 lines, but for the first two
    "over_100_percent": 0.5,
    "over_120": 0,
    "nested_comprehensions": 3,
    "conditional_expressions": 35,
    "tuple_assignments": 16,
}


@dataclass
class Counts:
    """What is counted in source code; counts of several files add up."""

    lines: int = 0
    over_100: int = 0
    over_120: int = 0
    nested_comprehensions: int = 0
    conditional_expressions: int = 0
    tuple_assignments: int = 0

    def __add__(self, other):
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def rates(self):
        """The numbers that LIMITS bounds."""
        thousands = max(self.lines, 1) / 1000
        return {
            "over_100_percent": 100 * self.over_100 / max(self.lines, 1),
            "over_120": self.over_120,
            "nested_comprehensions": self.nested_comprehensions / thousands,
            "conditional_expressions": self.conditional_expressions / thousands,
            "tuple_assignments": self.tuple_assignments / thousands,
        }


def code_lines(source):
    """The lines of a source, without comments, docstrings and empty lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            for row in range(node.lineno, node.end_lineno + 1):
                lines[row - 1] = ""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
            continue
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            for row in range(value.lineno, value.end_lineno + 1):
                lines[row - 1] = ""
    return [line.rstrip() for line in lines if line.strip()]


def nested_comprehensions(tree):
    """Comprehensions that stand inside another one, or have more than one `for`."""
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inner = [n for n in ast.walk(node) if isinstance(n, COMPREHENSIONS) and n is not node]
            found += bool(inner) or len(node.generators) > 1
    return found


def count(source):
    """Counts of one source."""
    lines, tree = code_lines(source), ast.parse(source)
    nodes = list(ast.walk(tree))
    pairs = [n for n in nodes if isinstance(n, ast.Assign) and isinstance(n.value, ast.Tuple)]
    return Counts(
        lines=len(lines),
        over_100=sum(len(line) > 100 for line in lines),
        over_120=sum(len(line) > 120 for line in lines),
        nested_comprehensions=nested_comprehensions(tree),
        conditional_expressions=sum(isinstance(n, ast.IfExp) for n in nodes),
        tuple_assignments=sum(isinstance(n.targets[0], ast.Tuple) for n in pairs),
    )


def library():
    """The modules of the library, without nbdev's index."""
    return [p for p in sorted(LIBRARY.rglob("*.py")) if p.name != "_modidx.py"]


def main(files):
    total = Counts()
    print(
        f"{'module':44}{'lines':>7}{'>100':>6}{'>120':>6}{'nested':>8}{'if-else':>9}{'tuples':>8}"
    )
    for path in files:
        counts = count(path.read_text())
        total = total + counts
        name = "/".join(path.parts[-2:])
        print(f"{name:44}{counts.lines:7}{counts.over_100:6}{counts.over_120:6}", end="")
        print(
            f"{counts.nested_comprehensions:8}{counts.conditional_expressions:9}{counts.tuple_assignments:8}"
        )
    print(f"\n{total.lines} lines")
    too_much = False
    for name, rate in total.rates().items():
        verdict = "ok" if rate <= LIMITS[name] else "TOO MUCH"
        too_much |= rate > LIMITS[name]
        print(f"{name:26}{rate:8.2f}   at most {LIMITS[name]}   {verdict}")
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main([Path(a) for a in sys.argv[1:]] or library()))
