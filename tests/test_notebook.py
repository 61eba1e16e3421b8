"""What a notebook shows of results, figures and bars: whole, escaped, and without IPython."""

from __future__ import annotations

import base64
import dataclasses
import io
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

import models
from minidl import Tensor, attack, cost, evaluate, explain, metrics, nn, notebook, ops, trace, view
from minidl.train import History

ROOT = pathlib.Path(__file__).parents[1]
HOSTILE = "<script>alert('&amp;\"')</script>"
rng = np.random.default_rng(0)
X = rng.random((3, 2, 8, 8), dtype=np.float32)


class Parsed(HTMLParser):
    """The tags of a text of HTML, which all have an end, its rows of cells, and the attributes of its images and frames."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.rows, self.about = list[str](), list[list[str]](), list[dict[str, str | None]]()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        if tag not in ("img", "br"):
            self.open.append(tag)
        if tag in ("img", "iframe"):
            self.about.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def shown(result: Any) -> Parsed:
    return Parsed(result._repr_html_())


def net() -> nn.Module:
    layers = nn.Conv2d(2, 3, 3, padding=1, rng=np.random.default_rng(1)), nn.ReLU(), nn.GlobalAvgPool2d()
    return nn.Sequential(*layers).eval()


# ---- tables


def test_a_table_is_escaped_and_has_a_foot() -> None:
    found = Parsed(notebook.table(["a", HOSTILE], [[HOSTILE, "1"]], foot=["all", "<b>"]))
    assert found.rows == [["a", HOSTILE], [HOSTILE, "1"], ["all", "<b>"]]


@pytest.mark.parametrize("n", [0, notebook.MOST, notebook.MOST + 1, 5000])
def test_of_a_long_table_the_ends_are_shown(n: int) -> None:
    rows = Parsed(notebook.table(["k"], ([f"{k}"] for k in range(n)))).rows[1:]
    if n <= notebook.MOST:
        assert rows == [[f"{k}"] for k in range(n)]
    else:
        assert rows[0] == ["0"] and rows[-1] == [f"{n - 1}"] and len(rows) == notebook.MOST + 1
        assert rows[notebook.MOST // 2] == [f"… {n - notebook.MOST:,} rows …"]


@pytest.mark.parametrize(
    "value, text",
    [(0.0, "0"), (1.0, "1"), (0.99999, "0.99999"), (1e-9, "1e-09"), (0.12345, "0.1235"), (12345.6, "12,346"), (-0.5, "-0.5")],
)
def test_no_share_is_rounded_to_all_or_to_none(value: float, text: str) -> None:
    assert notebook.number(value) == text


def test_numbers_that_are_none() -> None:
    assert [notebook.number(v) for v in (float("nan"), float("inf"), -float("inf"))] == ["nan", "inf", "-inf"]


# ---- results


def test_a_trace_and_a_cost_show_what_they_print() -> None:
    model = net()
    y = ops.sum(model(Tensor(X, requires_grad=True)))
    for result, foot in (trace(y), 0), (cost(model, (2, 8, 8)), 1):
        rows, lines = shown(result).rows, [line for line in str(result).splitlines() if set(line) != {"-"}]
        assert len(rows) == len(lines) > 3
        for row, line in zip(rows, lines, strict=True):
            assert "".join(row).replace(" ", "") == line.replace(" ", "")
        assert (rows[-1][0] == "total") == bool(foot)


def test_names_of_layers_are_escaped() -> None:
    w = Tensor(np.ones((2, 2), np.float32), requires_grad=True, name=HOSTILE)
    record = dataclasses.replace(trace(ops.sum(w)).records[0], layer=HOSTILE)
    assert shown(type(trace(ops.sum(w)))([record])).rows[1][2] == HOSTILE


@pytest.mark.parametrize(
    "n, more", [(1, "saliency: 1 map of 8 x 8 pixels"), (30, "30 maps of 8 x 8 pixels, of which the first 12 are")]
)
def test_an_explanation_shows_its_maps(n: int, more: str) -> None:
    found = explain.saliency(net(), np.resize(X, (n, 2, 8, 8)))
    text = found._repr_html_()
    (about,) = Parsed(text).about
    assert more in text and f"{n} map" in str(about["alt"])
    head, _, data = str(about["src"]).partition(",")
    assert head == "data:image/png;base64"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert (np.ptp(image, axis=-1) > 60).sum() > 500 and image.shape[1] < 1200


def test_an_explanation_of_whatever_values_and_names_shows_itself() -> None:
    found = explain.grad_times_input(net(), X)
    for values in np.full((3, 8, 8), np.nan), np.zeros((3, 8, 8)), found.map.astype(np.float16), found.map > 0:
        odd = dataclasses.replace(found, map=values, params=found.params | {"head": HOSTILE})
        assert HOSTILE in str(shown(odd).about[0]["alt"])


def test_a_history_is_a_list_that_shows_a_table() -> None:
    rows = [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": float("nan"), HOSTILE: 0.999999}]
    history = History(rows)
    assert history == rows
    assert shown(history).rows == [["epoch", "train loss", HOSTILE], ["1", "0.5", ""], ["2", "nan", "0.999999"]]
    assert shown(History()).rows == [[]]


def test_measures_show_tables() -> None:
    p = np.repeat([[0.1, 0.9]], 4, axis=0)
    found = shown(metrics.reliability(p, np.array([1, 1, 1, 0]), bins=2)).rows
    assert found == [
        ["predicted", "images", "mean predicted", "came true"],
        ["(0, 0.5]", "0", "", ""],
        ["(0.5, 1]", "4", "0.9", "0.75"],
        ["expected calibration error", "4", "", "0.15"],
    ]
    score = evaluate.MaskScore(np.array([0.5, 0.5]), np.array([0.25, 0.25]))
    assert shown(score).rows[1] == ["2", "0.500 [0.500, 0.500]", "0.25"]
    kept = evaluate.Randomization((HOSTILE,), np.array([[1.0, 0.25], [1.0, 0.5]]))
    assert shown(kept).rows[1:] == [["none", "1"], [HOSTILE, "0.375"]]


# ---- figures

SCORES, LABELS = rng.random(40), np.arange(40) % 2
FIGURES: dict[str, Callable[[Any], Any]] = {
    "accuracy_by_eps": lambda path: view.accuracy_by_eps(path, [0, 0.1], {"a": [1, 0.5]}, 0.5),
    "architecture": lambda path: view.architecture(path, cost(net(), (2, 8, 8))),
    "calibration": lambda path: view.calibration(path, {"a": metrics.reliability(np.eye(2)[LABELS], LABELS)}),
    "comparison": lambda path: view.comparison(path, X, {"a": X[:, 0]}),
    "confusion": lambda path: view.confusion(path, np.eye(2), ["a", "b"]),
    "curves": lambda path: view.curves(
        path, [{"epoch": 1, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "train_majority_accuracy": 0.5}]
    ),
    "fooled": lambda path: view.fooled(path, X, X, np.eye(3), np.eye(3), "abc"),
    "gradient_images": lambda path: view.gradient_images(path, X, X[:, 0], np.arange(3), np.eye(3), "abc"),
    "images_of_classes": lambda path: view.images_of_classes(path, X, "abc"),
    "linearity": lambda path: view.linearity(path, {"a": attack.linearity(net(), X[:1], np.zeros(1, int), 0.1)}, "abc"),
    "overlays": lambda path: view.overlays(path, X, X[:, 0]),
    "precision_recall": lambda path: view.precision_recall(path, {"a": metrics.precision_recall_curve(SCORES, LABELS)}),
    "roc": lambda path: view.roc(path, {"a": metrics.roc_curve(SCORES, LABELS)}),
}


def test_every_figure_is_tried() -> None:
    assert {*FIGURES, "Drawing", "Frame", "frame", "stepper"} == set(view.__all__)


QUICK = "calibration", "confusion", "roc"


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.ci]) for name in FIGURES])
def test_a_figure_without_a_path_is_returned_and_no_file_written(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawing = FIGURES[name](None)
    assert isinstance(drawing, view.Drawing) and not list(tmp_path.iterdir())
    content, size = drawing._repr_png_()
    with Image.open(io.BytesIO(content)) as image:
        assert image.size[0] * size["height"] == pytest.approx(image.size[1] * size["width"], rel=0.02)
    assert FIGURES[name](tmp_path / "a.png") is not None and (tmp_path / "a.png").read_bytes() == content
    drawing.save("b.png")
    assert (tmp_path / "b.png").read_bytes() == content  # a second time, too
    assert "inches; save(path) writes it" in repr(drawing)
    with pytest.raises(ValueError, match="path: expected a name that ends in"):
        drawing.save("b.gif")


def test_an_explanation_is_drawn_without_a_path() -> None:
    assert isinstance(explain.saliency(net(), X).plot(None, X), view.Drawing)


# ---- the stepper's page


def test_a_page_in_a_frame_is_the_page(tmp_path: pathlib.Path) -> None:
    page = tmp_path / f"{HOSTILE[:7]}.html"
    page.write_text(f'<p title="a">{HOSTILE} é</p>', encoding="utf-8")
    framed = view.frame(page, height=300)
    (about,) = shown(framed).about
    assert about["srcdoc"] == page.read_text(encoding="utf-8") and about["sandbox"] == "allow-scripts"
    assert "height:300px" in str(about["style"]) and about["title"] == page.name
    assert unescape(framed._repr_html_().split('srcdoc="')[1].split('"')[0]) == about["srcdoc"]
    assert len(repr(framed)) < 100
    with pytest.raises(ValueError, match="height"):
        view.frame(page, height=0)


def test_the_stepper_in_a_frame(tmp_path: pathlib.Path) -> None:
    page = view.stepper(models.resnet8(in_channels=2, num_classes=2).eval(), X[:1], path=tmp_path / "p.html")
    (about,) = shown(view.frame(page)).about
    assert about["srcdoc"] == page.read_text(encoding="utf-8")


# ---- the bar


def bar(around: str, code: str) -> str:
    """What a process prints, on both streams, in which IPython and ipywidgets are as `around` makes them."""
    script = f"""
    import sys, types, importlib.util, warnings
    warnings.simplefilter("error")
    class Shell: config = {{"IPKernelApp": {{}}}}
    def kernel(shell):
        sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell, version_info=(9,))
    {around}
    from minidl.bar import Bar
    {code}
    """
    run = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


NO_WIDGETS = (
    "find = importlib.util.find_spec; importlib.util.find_spec = lambda n, *a: None if n == 'ipywidgets' else find(n, *a)"
)
WORK = "b = Bar(total=2, disable=None, desc='work', mininterval=0); print(Bar.__mro__[1].__name__, b.disable); b.update(2)"


@pytest.mark.parametrize(
    "around, said, is_drawn",
    [
        ("pass", "tqdm True", False),  # a pipe is no terminal
        ("kernel(None)", "tqdm True", False),  # IPython was imported, and does not run
        ("kernel(types.SimpleNamespace(config={}))", "tqdm True", False),  # IPython in a terminal, into a pipe
        (f"kernel(Shell); {NO_WIDGETS}", "tqdm False", True),  # a notebook without widgets has the bar of a terminal
    ],
)
def test_the_bar_where_there_are_no_widgets(around: str, said: str, is_drawn: bool) -> None:
    printed = bar(around, WORK)
    assert said in printed and ("work: 100%" in printed) == is_drawn


def test_training_shows_its_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from minidl.train.meter import Meter

    with Meter(0, 1, 10) as meter:
        meter.add(0.5, np.array([3]), np.array([10]), 10)
    assert "epoch 1/1" not in capsys.readouterr().err
    monkeypatch.setattr("minidl.bar.in_notebook", lambda: True)
    monkeypatch.setattr("minidl.bar._kind", lambda: Meter.__init__.__globals__["Bar"].__mro__[1])
    with Meter(0, 1, 10) as meter:
        meter.add(0.5, np.array([3]), np.array([10]), 10)
    assert "epoch 1/1" in capsys.readouterr().err
