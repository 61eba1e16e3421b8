"""A script of percent cells becomes a notebook, and executed it shows tables, figures, the stepper's page and bars."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

import minidl

jupytext = pytest.importorskip("jupytext")
nbconvert = pytest.importorskip("nbconvert")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.oracle

ROOT = pathlib.Path(minidl.__file__).parents[1]
SCRIPT = """# %% [markdown]
# # A net, and what it looks at
# %%
import numpy as np
import models
from minidl import Tensor, check, cost, explain, metrics, ops, trace, view
from minidl.bar import Bar
from minidl.data import lesions
from minidl.train import Settings, fit

train_set, test_set = lesions(32), lesions(3, seed=1)
model = models.resnet8(num_classes=2, seed=0)
print(Bar.__mro__[1].__name__)
# %%
fit(model, train_set, Settings(epochs=2, batch_size=16, lr=0.1, model="resnet8"), out="run")
# %%
x = test_set.images.astype(np.float32)[:3] / 255
explanation = explain.smoothgrad(model.eval(), x, samples=4, progress=True)
explanation
# %%
explanation.plot(None, x)
# %%
cost(model, (3, 32, 32))
# %%
trace(ops.mean(model(Tensor(x, requires_grad=True))))
# %%
view.frame(view.stepper(model, x[0], path="page.html"))
# %%
check.gradient_check(ops.tanh, [x[0, 0, :2, :3]])
"""
HIDE = """
from importlib import util
find = util.find_spec
util.find_spec = lambda name: None if name == "ipywidgets" else find(name)
"""


@pytest.fixture(scope="module", params=["with widgets", "without"])
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Any]]:
    """The outputs of each cell of code."""
    folder = tmp_path_factory.mktemp("notebook")
    around = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::UserWarning", "MINIDL_KERNELS": "reference"}
    if request.param == "without":
        (folder / "sitecustomize.py").write_text(HIDE)
        around["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"
    else:
        pytest.importorskip("ipywidgets")
    book = jupytext.reads(SCRIPT, fmt="py:percent")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in around.items():
            patch.setenv(name, value)
        executor = nbconvert.preprocessors.ExecutePreprocessor(timeout=300, kernel_name="python3")
        executor.preprocess(book, {"metadata": {"path": str(folder)}})
    page, _ = nbconvert.HTMLExporter().from_notebook_node(book)
    (folder / "book.html").write_text(page, encoding="utf-8")
    return request.param, [cell.outputs for cell in book.cells if cell.cell_type == "code"]


def result(outputs: list[Any]) -> dict[str, Any]:
    (found,) = (output.data for output in outputs if output.output_type == "execute_result")
    return dict(found)


def printed(outputs: list[Any]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_the_notebook(cells: tuple[str, list[Any]]) -> None:
    around, (start, training, explained, drawn, costs, traced, page, checked) = cells
    kind = "tqdm_notebook" if around == "with widgets" else "tqdm"
    assert kind in printed(start).split()
    assert "<table>" in result(training)["text/html"] and "train loss" in result(training)["text/html"]
    widgets = [o for o in training if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    if around == "with widgets":
        assert len(widgets) == 2  # one an epoch
    else:
        assert not widgets and "epoch 1/2" in printed([o for o in training if o.get("name") == "stderr"])
    assert "data:image/png;base64" in result(explained)["text/html"]
    assert result(drawn)["image/png"] and "<Drawing" in result(drawn)["text/plain"]
    assert "multiply-adds" in result(costs)["text/html"] and "Conv2d" in result(traced)["text/html"]
    assert "<iframe" in result(page)["text/html"] and "srcdoc" in result(page)["text/html"]
    assert result(checked)["text/plain"].startswith("tanh: right in 1 input, 6 elements checked")
    for outputs in cells[1]:
        assert not any("Warning" in str(output) for output in outputs)
