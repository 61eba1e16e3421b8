"""The lessons of the course: each has its parts in order, each runs with smaller sizes, and they make one book."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
LESSONS = ROOT / "examples" / "lessons"
PATHS = {path.stem: path for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
PARTS = [r"# \d+\. .+", "## Predict", "## The image", "## Questions", "## Exercise"]  # headings, in this order, others between


class Cell(NamedTuple):
    """Of a percent script: markdown without its signs of comment, or code."""

    is_markdown: bool
    text: str


def cells(path: pathlib.Path) -> list[Cell]:
    found = []
    for part in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind, _, text = part.partition("\n")
        is_markdown = kind.strip() == "[markdown]"
        assert is_markdown or not kind.strip(), kind
        found.append(Cell(is_markdown, re.sub(r"^# ?", "", text, flags=re.MULTILINE) if is_markdown else text))
    return found


def prose(path: pathlib.Path) -> str:
    return "\n".join(cell.text for cell in cells(path) if cell.is_markdown)


def section(path: pathlib.Path, heading: str) -> str:
    return prose(path).split(f"## {heading}\n")[1].split("\n## ")[0]


def run(words: list[str], folder: pathlib.Path, **around: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "MINIDL_LESSONS": str(folder)} | around
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)


# ---- what they are


def test_they_are_numbered() -> None:
    assert [int(name[:2]) for name in PATHS] == list(range(1, len(PATHS) + 1))


@pytest.mark.parametrize("name", PATHS)
def test_length(name: str) -> None:
    assert len(PATHS[name].read_text(encoding="utf-8").splitlines()) <= 150


def test_tiny_has_a_hundred_lines() -> None:
    assert len((LESSONS / "tiny.py").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("name", PATHS)
def test_parts_in_order(name: str) -> None:
    path, number = PATHS[name], int(name[:2])
    headings = re.findall(r"^##? .*$", prose(path), re.MULTILINE)
    places = [next((k for k, h in enumerate(headings) if re.fullmatch(part, h)), -1) for part in PARTS]
    assert places[0] == 0 and places == sorted(places) and -1 not in places, headings
    assert headings[0].startswith(f"# {number}. ")
    first = cells(path)[0].text
    aim, read = re.search(r"\*\*Aim\.\*\* (.*?)\n\n", first, re.DOTALL), "**Read before.**" in first
    assert read and aim is not None and len(re.findall(r"[.?!](?:\s|$)", aim[1])) == 2, "an aim of two sentences"
    assert len(re.findall(r"^\d\. ", section(path, "Predict"), re.MULTILINE)) >= 2
    assert len(re.findall(r"^\d\. ", section(path, "Questions"), re.MULTILINE)) == 3


@pytest.mark.parametrize("name", PATHS)
def test_it_ends_in_an_image(name: str) -> None:
    code = [cell.text for cell in cells(PATHS[name]) if not cell.is_markdown]
    assert re.search(rf'show\(out\("{name}\.png"\), "[^"]+"(?:, \w+)?\)\n*$', code[-1])


@pytest.mark.parametrize("name", PATHS)
def test_it_predicts_before_it_runs(name: str) -> None:
    """Above the prediction nothing stands but imports."""
    for cell in cells(PATHS[name]):
        if cell.is_markdown and "## Predict" in cell.text:
            return
        if not cell.is_markdown:
            assert all(re.match(r"from|import|#|$", line) for line in cell.text.splitlines()), cell.text


@pytest.mark.parametrize("name", PATHS)
def test_files_that_are_named(name: str) -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?|\w+\.md)`", prose(PATHS[name]))
    assert any(file.startswith(("minidl/", "models/")) for file in named)
    assert all((ROOT / file).exists() for file in named), named


@pytest.mark.parametrize("name", PATHS)
def test_exercise_and_answers(name: str) -> None:
    number = name[:2]
    said = " ".join(section(PATHS[name], "Exercise").split())
    assert f"`examples/exercises/lesson{number}.py`" in said
    assert f"`python -m pytest examples/exercises -k lesson{number}`" in said
    for file in f"exercises/lesson{number}.py", f"exercises/test_lesson{number}.py", f"solutions/lesson{number}.py":
        assert (ROOT / "examples" / file).exists(), file
    answers = (LESSONS / "answers.md").read_text(encoding="utf-8").split(f"## Lesson {int(number)}\n")[1].split("\n## ")[0]
    assert "*Predicted:*" in answers and len(re.findall(r"^\d\. ", answers, re.MULTILINE)) == 3


# ---- that they run


@pytest.mark.ci
@pytest.mark.parametrize("name", PATHS)
def test_it_runs(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "lessons"  # one for all, so that the first net is trained once
    done = run([str(PATHS[name]), "--quick"], folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    image = folder / "quick" / f"{name}.png"
    assert f"now look at {image}: " in done.stdout.splitlines()[-1]
    with Image.open(image) as opened:
        assert min(opened.size) > 300


@pytest.mark.ci
def test_quick_is_an_argument_or_the_environment(tmp_path: pathlib.Path) -> None:
    lesson = "from course import FOLDER, QUICK; print(QUICK, FOLDER.name)"
    said = {}
    for value in "", "0", "1":
        done = run(["-c", f"import sys; sys.path.insert(0, {str(LESSONS)!r}); {lesson}"], tmp_path, MINIDL_QUICK=value)
        said[value] = done.stdout.split()
    assert said == {"": ["False", tmp_path.name], "0": ["False", tmp_path.name], "1": ["True", "quick"]}


def test_an_argument_that_no_lesson_knows(tmp_path: pathlib.Path) -> None:
    done = run([str(PATHS["02_backpropagation"]), "--qiuck"], tmp_path)
    assert done.returncode == 2 and "unrecognized arguments: --qiuck" in done.stderr


@pytest.mark.ci
def test_control_c_is_one_sentence(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-u", str(PATHS["02_backpropagation"])]
    around = os.environ | {"PYTHONPATH": str(ROOT), "MINIDL_LESSONS": str(tmp_path)}
    with subprocess.Popen(words, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        said = child.stdout.readline()  # the first cell has run
        child.send_signal(signal.SIGINT)
        rest, trace = child.communicate(timeout=60)
    assert said and "Stopped. The same command begins the lesson anew" in rest and "Traceback" not in trace
    assert child.returncode == -signal.SIGINT


# ---- the book


@pytest.mark.oracle
def test_the_book_in_a_browser(tmp_path: pathlib.Path) -> None:
    """Two lessons, executed with smaller sizes: one file that asks for nothing, with images, contents and answers."""
    pytest.importorskip("jupytext"), pytest.importorskip("nbconvert"), pytest.importorskip("ipykernel")
    words = ["--quick", "--lessons", "2", "3", "--out", str(tmp_path / "book.html"), "--notebooks", str(tmp_path / "notebooks")]
    done = run(["-m", "examples.lessons.book", *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name[:2] for path in (tmp_path / "notebooks").iterdir()) == ["02", "03"]
    for page in browse(tmp_path / "book.html"):
        assert page.locator("article").count() == 3 and page.locator("h1").count() == 4
        links = page.locator("nav a")
        assert links.count() == 3
        for k in range(3):
            links.nth(k).click()
            name = page.evaluate("location.hash.slice(1)")
            box = page.locator(f"#{name}").bounding_box()
            assert box is not None and -5 < box["y"] < 500, name
        images = page.locator("img")
        assert images.count() >= 2
        for k in range(images.count()):
            assert images.nth(k).get_attribute("alt") and images.nth(k).evaluate("i => i.complete && i.naturalWidth") > 300
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        assert "Predicted" in page.locator("#answers").inner_text()
        assert page.locator(".note").is_visible()
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400  # code scrolls in its box


def browse(path: pathlib.Path) -> Iterator[Any]:
    """The page, open; in the end it has asked for nothing and complained about nothing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, troubles = browser.new_page(), list[str]()
        page.on(
            "request", lambda request: troubles.append(request.url) if not request.url.startswith(("file:", "data:")) else 0
        )
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert not troubles


@pytest.mark.oracle
def test_a_lesson_that_fails_makes_no_book(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jupytext = pytest.importorskip("jupytext")
    pytest.importorskip("nbconvert"), pytest.importorskip("ipykernel")
    from examples.lessons import book

    broken = jupytext.reads("# %%\n1 / 0\n", "py:percent")
    monkeypatch.setattr(jupytext, "read", lambda path: broken)
    assert book.main(["--lessons", "2", "--out", str(tmp_path / "book.html")]) == 1
    assert not (tmp_path / "book.html").exists()


SLOW = """# %%
import sys, warnings
from minidl.bar import Bar
for i in Bar(range(5), desc="slow", disable=None, mininterval=0):
    print("told", i)
warnings.warn("look at this")
"""


@pytest.mark.oracle
def test_the_book_keeps_what_is_told_and_no_bar() -> None:
    jupytext = pytest.importorskip("jupytext")
    pytest.importorskip("nbconvert"), pytest.importorskip("ipykernel")
    from examples.lessons import book

    notebook = jupytext.reads(SLOW, "py:percent")
    book.execute(notebook, quick=True)
    outputs = notebook.cells[0]["outputs"]
    text = "".join(output["text"] for output in outputs)
    assert "told 0" in text and "told 4" in text and text.count("look at this") == 2  # the warning, and its line
    assert "slow" not in text and "\x1b" not in text and all(output["text"].strip() for output in outputs)
    widget = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "slow: 5"}}
    table = {"output_type": "display_data", "data": {"text/html": "<b>"}}
    up = {"output_type": "stream", "name": "stderr", "text": "\x1b[A"}
    assert list(book.without_bars([widget, up, table])) == [table]


def test_a_lesson_that_is_not_there(tmp_path: pathlib.Path) -> None:
    done = run(["-m", "examples.lessons.book", "--lessons", "77"], tmp_path)
    assert done.returncode == 2 and f"--lessons: expected numbers from 1 to {len(PATHS)}, got 77" in done.stderr


# ---- the clock


def test_the_clock_times_each_lesson_in_its_own_process(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one new folder for all, so that the net of lesson 1 is found; a lesson that fails ends it with what it printed."""
    from examples.lessons import clock

    words = "import os, pathlib, sys, time\nnet = pathlib.Path(os.environ['MINIDL_LESSONS']) / 'net'\n"
    (tmp_path / "01_first.py").write_text(words + "assert not any(net.parent.iterdir())\nnet.touch()\ntime.sleep(0.3)")
    (tmp_path / "02_second.py").write_text(words + "assert net.exists()\nassert sys.argv[1:] == ['--quick'], sys.argv")
    monkeypatch.setattr(clock, "LESSONS", tmp_path)
    table = tmp_path / "times.md"
    assert clock.main(["--quick", "--out", str(table)]) == 0
    rows = re.findall(r"^\| (\w+) \| (\d+\.\d) \|$", table.read_text(encoding="utf-8"), re.MULTILINE)
    seconds = {name: float(value) for name, value in rows}
    assert list(seconds) == ["01_first", "02_second", "all"] and seconds["01_first"] >= 0.3
    assert seconds["all"] == pytest.approx(seconds["01_first"] + seconds["02_second"], abs=0.11)
    assert clock.main(["--out", str(table)]) == 1  # the second is run without --quick
    assert "error: 02_second.py: " in capsys.readouterr().err
    assert "02_second" not in table.read_text(encoding="utf-8")
