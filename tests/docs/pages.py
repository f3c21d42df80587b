"""Reading the project's pages: their code blocks, tables, links and commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("recipes/**/README.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)


def read(name: str) -> str:
    """The text of docs/NAME.md."""
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def blocks(text: str, language: str | None = None) -> list[str]:
    """The fenced code blocks of a page, of one language or all."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for name, code in found if language is None or name == language]


def prose(text: str) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def named_file(text: str, name: str) -> str:
    """The code block whose first line is the comment `# NAME`."""
    (code,) = [b for b in blocks(text) if b.startswith(f"# {name}\n")]
    return code


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the only table whose header begins with `head`, as cells."""
    (rows,) = tables(text, head)
    return rows


def tables(text: str, head: str) -> list[list[list[str]]]:
    """The rows of each table whose header begins with `head`."""
    lines, found = prose(text).splitlines(), []
    for start in (i for i, line in enumerate(lines) if line.startswith(f"| {head} |")):
        rows = []
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        found.append(rows)
    return found


def codes(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def names(rows: list[list[str]], column: int = 0) -> list[str]:
    """The identifiers in one column: `frames(fps=None)` counts as frames."""
    return [code.partition("(")[0] for row in rows for code in codes(row[column])]


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def commands(text: str) -> list[list[str]]:
    """The arguments of every `mertool ...` in the code blocks of a page."""
    lines = re.findall(r"^    (mertool .*)$", prose(text), re.MULTILINE)
    for code in blocks(text, "sh") + blocks(text, "bash") + blocks(text, "console"):
        lines += code.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words: list[str] = []
        for word in [*shlex.split(line.removeprefix("$ "), comments=True), "&&"]:
            if word in ("&&", "|", ";", ">"):
                while words and re.fullmatch(r"\w+=.*", words[0]):  # VARIABLE=value command
                    words.pop(0)
                if words[:1] == ["mertool"]:
                    found.append(words[1:])
                words = []
            else:
                words.append(word)
    return found
