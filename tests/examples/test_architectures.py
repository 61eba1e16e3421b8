"""examples/architectures.py on the smaller nets, and what it knows against what is counted elsewhere."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest
from PIL import Image

import minidl
import models

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "architectures.py"
spec = importlib.util.spec_from_file_location("architectures_example", SCRIPT)
assert spec is not None and spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


@pytest.mark.ci
def test_table_errors_explanations_and_image(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    nets = ["googlenet", "inception_v3", "densenet121"]
    assert example.main(["--nets", *nets, "--out", str(tmp_path / "a" / "b")]) == 0
    printed = capsys.readouterr().out
    assert "| GoogLeNet | 2014 | 22 | 6,998,552 | 1.58 G | 56 MB | 715 pixels, of 224 |" in printed
    assert "| Inception-v3 | 2015 | 48 | 23,834,568 | 5.71 G | 128 MB | 1311 pixels, of 299 |" in printed
    assert "| DenseNet-121 | 2016 | 121 | 7,978,856 | 2.60 G | 194 MB | 2071 pixels, of 224 |" in printed
    assert "| GoogLeNet | 10.47% | 10.07% | 1 crop | Szegedy et al. 2015, table 3 |\n|  |  | 9.15% | 10 crops |" in printed
    assert "has 7.0 million, 6.0 million of them before the last layer" in printed and "has 6.6 million" in printed
    assert "3.4 times the parameters" in printed and "3.6 times the multiply-adds" in printed and "VGG" not in printed
    assert printed.startswith((tmp_path / "a" / "b" / "table.md").read_text().rstrip("\n"))
    with Image.open(tmp_path / "a" / "b" / "figure.png") as image:
        assert min(image.size) > 300


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet18", 18), ("resnet50", 50), ("plain20", 20), ("densenet40_12", 40), ("googlenet", 22)],
)
def test_depth_is_the_longest_way(name: str, layers: int) -> None:
    assert example.depth(minidl.cost(getattr(models, name)(num_classes=2), (3, 32, 32))) == layers


def test_every_error_has_protocol_and_source() -> None:
    for net in example.NETS.values():
        for error in filter(None, (net.crop, net.many)):
            assert 3 < error.percent < 12 and error.protocol and error.source
        assert net.crop is None or net.crop.percent > net.many.percent  # more crops, fewer errors


def test_an_unknown_net(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--nets", "alexnet"])
    assert "invalid choice: 'alexnet'" in capsys.readouterr().err
