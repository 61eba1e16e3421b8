"""examples/dense_or_residual.py: the match of the nets, and what their steps cost."""

from __future__ import annotations

import pathlib

import compare
import dense_or_residual as example
import pytest
from PIL import Image

import models


@pytest.mark.ci
def test_a_small_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recomputing what the layers of a block read saves more than half; a residual net keeps most of what it makes anyway."""
    costs, measure = example.Costs(), example.measure
    monkeypatch.setattr(example, "measure", lambda *asked: costs.update(measure(*asked)) or costs)
    asked = ["--images", "32", "--batch-size", "32", "--epochs", "1", "--out", str(tmp_path)]
    assert example.main(asked) == 0
    assert list(costs) == [(name, fused) for name in ("resnet20", "densenet_bc52_12") for fused in (True, False)]
    grown = {case: cost.peak - cost.before for case, cost in costs.items()}
    assert all(cost.seconds > 0 and cost.before > 2**24 for cost in costs.values())
    assert grown["densenet_bc52_12", True] < grown["densenet_bc52_12", False] / 2
    assert grown["resnet20", True] > grown["resnet20", False] / 3

    table = (tmp_path / "table.md").read_text().splitlines()
    assert len({len(line) for line in table}) == 1
    net, parameters, *_, ms, ms_op_by_op, peak, peak_op_by_op = (cell.strip() for cell in table[3].split("|")[1:-1])
    assert net == "densenet_bc52_12" and parameters == f"{compare.count(models.densenet_bc(52, 12, num_classes=2)):,}"
    dense = [costs[net, fused] for fused in (True, False)]
    assert [ms, ms_op_by_op] == [f"{cost.seconds * 1e3:,.0f}" for cost in dense]
    assert [peak, peak_op_by_op] == [f"{cost.peak / 2**20:,.0f}" for cost in dense]
    with Image.open(tmp_path / "figure.png") as image:
        assert min(image.size) > 400


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet44"])
def test_parameters_match(name: str) -> None:
    wanted = compare.count(getattr(models, name)())
    depth, growth = example.match(wanted)
    assert compare.count(models.densenet_bc(depth, growth)) == pytest.approx(wanted, rel=0.02)


def test_no_net_matches() -> None:
    with pytest.raises(ValueError, match="parameters: no DenseNet-BC of up to 100 layers comes within 2% of 100"):
        example.match(100)


def test_unknown_options_list_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--resnet", "resnet21"])
    error = capsys.readouterr().err
    assert all(name in error for name in example.RESIDUAL)
