"""The course as one book: every lesson executed, with its images inside, and the answers at the end.

    python -m examples.lessons.book                     # book.html, in four minutes on two cores
    python -m examples.lessons.book --quick             # with smaller sizes, in minutes: to see that all of it runs
    python -m examples.lessons.book --notebooks FOLDER  # and each lesson as an .ipynb

The page is one file that needs no network. Executing wants `pip install -e ".[course]"`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from minidl.bar import Bar
from minidl.io import files

LESSONS = pathlib.Path(__file__).resolve().parent
STYLE = """
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 17px/1.55 Georgia, serif; color: #222; }
h1, h2, nav { font-family: system-ui, sans-serif; line-height: 1.25; }
article { border-top: 1px solid #ccc; margin-top: 3rem; }
a { color: #0b62a4; }
img { max-width: 100%; height: auto; }
pre, code { font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre { background: #f6f6f6; padding: .6rem .8rem; overflow-x: auto; margin: .4rem 0; }
.jp-OutputArea-output pre { background: none; border-left: 3px solid #0b62a4; }
.note { background: #fff4e5; padding: .6rem .8rem; }
"""


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1, and a line, where a lesson cannot be executed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the lessons with smaller sizes")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("book.html"), help="the page; by default book.html")
    parser.add_argument("--notebooks", type=pathlib.Path, metavar="FOLDER", help="write each lesson there as an .ipynb, too")
    parser.add_argument("--lessons", type=int, nargs="+", metavar="N", help="some of them; by default all")
    asked = parser.parse_args(arguments)
    paths = {int(path.name[:2]): path for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}
    if unknown := set(asked.lessons or ()) - set(paths):
        parser.error(f"--lessons: expected numbers from 1 to {max(paths)}, got {', '.join(map(str, sorted(unknown)))}")
    try:
        import jupytext
        from nbclient.exceptions import CellExecutionError
    except ImportError as error:
        print(f'error: {error.name} is missing; pip install -e ".[course]" installs it', file=sys.stderr)
        return 1
    chapters = {}
    for number in Bar(asked.lessons or list(paths), desc="lessons", disable=None):
        notebook = jupytext.read(paths[number])
        try:
            execute(notebook, asked.quick)
        except CellExecutionError as error:
            print(f"error: {paths[number].name}: {error}", file=sys.stderr)
            return 1
        chapters[number] = notebook
        if asked.notebooks:
            asked.notebooks.mkdir(parents=True, exist_ok=True)
            write_notebook(notebook, asked.notebooks / paths[number].with_suffix(".ipynb").name)
    files.write(asked.out, page(chapters, asked.quick))
    print(f"now look at {asked.out}")
    return 0


def execute(notebook: Any, quick: bool) -> None:
    """Run all cells in a new process, as if the notebook lay beside the lessons. Raises CellExecutionError where one fails."""
    from nbclient import NotebookClient

    around = {
        **os.environ,
        "MINIDL_QUICK": str(int(quick)),
        "PYTHONPATH": os.pathsep.join([str(LESSONS.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    beside = {"metadata": {"path": str(LESSONS)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=beside).execute(env=around)
    for cell in notebook.cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = list(without_bars(cell["outputs"]))


def without_bars(outputs: list[Any]) -> Iterator[Any]:
    """What cells have told, but for bars, which draw anew and anew: letters behind a carriage return, lines up, widgets."""
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stderr":
            output["text"] = re.sub(r"\r[^\r\n]*|\x1b\[A", "", output["text"])
        elif "application/vnd.jupyter.widget-view+json" in output.get("data", ()):
            continue
        if output.get("text", "some").strip():
            yield output


def write_notebook(notebook: Any, path: pathlib.Path) -> None:
    """The notebook with a cell before all others, that finds what lies beside the lessons."""
    import nbformat

    way = nbformat.v4.new_code_cell(f"import sys\n\nsys.path.insert(0, {str(LESSONS)!r})")
    whole = nbformat.v4.new_notebook(cells=[way, *notebook.cells], metadata=notebook.metadata)
    files.write(path, nbformat.writes(whole))


# ---- the page


def page(chapters: dict[int, Any], quick: bool) -> str:
    """One HTML file: contents, a chapter for each executed notebook, the answers of these lessons."""
    import nbformat
    from pygments.formatters import HtmlFormatter

    bodies = {f"lesson-{number:02}": body(notebook, f"lesson-{number:02}") for number, notebook in chapters.items()}
    answers = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Answers\n\n" + answers_of(list(chapters)))])
    bodies["answers"] = body(answers, "answers")
    titles = {name: re.findall(r"<h1.*?>(.*?)</h1>", text)[0] for name, text in bodies.items()}
    contents = "\n".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in titles.items())
    note = '<p class="note">Built with --quick, on smaller sizes: numbers and images are not those that the text speaks of.</p>'
    articles = "\n".join(f'<article id="{name}">\n{text}\n</article>' for name, text in bodies.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>minidl: the course</title>
<style>{STYLE}{HtmlFormatter().get_style_defs(".highlight")}</style>
</head>
<body>
<h1>minidl: the course</h1>
{note if quick else ""}
<nav aria-label="Contents">
<ul>
{contents}
</ul>
</nav>
{articles}
</body>
</html>
"""


def body(notebook: Any, name: str) -> str:
    """The cells as HTML, without a head; ids begin with `name`, for several chapters have headings of the same name."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    text, _ = exporter.from_notebook_node(notebook)
    return re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', text)


def answers_of(numbers: list[int]) -> str:
    """Those of the lessons of these numbers, from answers.md."""
    text = (LESSONS / "answers.md").read_text(encoding="utf-8")
    parts = {int(part.split()[0]): part for part in text.split("## Lesson ")[1:]}
    return "\n".join(f"## Lesson {parts[number]}" for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
