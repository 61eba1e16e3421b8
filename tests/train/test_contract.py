"""What a run's weights say of the net: written and read back, damaged, old, foreign; and images as the net takes them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import models
from minidl import Tensor, nn, ops, weights
from minidl.array import Array
from minidl.data import Dataset, image_folder, lesions
from minidl.data.reading import as_held
from minidl.inference import predict
from minidl.train import Contract, Settings, fit, load_run
from minidl.train.contract import range_of

NETS: dict[str, Callable[..., nn.Module]] = {"resnet8": models.resnet8, "googlenet": models.googlenet}
RULE = {"target": "right", "threshold": 0.3, "sensitivity": 0.9, "specificity": 0.5, "images": 16, "wanted": None}
TINY = Settings(epochs=1, batch_size=8, crop=0, model="resnet8")


def dataset(images: Array) -> Dataset:
    return Dataset(images, np.arange(len(images)) % 2, ("left", "right"))


def noise(shape: tuple[int, ...], dtype: str = "uint8", high: int = 255, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, high + 1, shape).astype(dtype)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Of images of 12x20 pixels, which are not square."""
    out = tmp_path_factory.mktemp("runs") / "run"
    images = dataset(noise((16, 3, 12, 20)))
    fit(models.resnet8(2), images, TINY, out, images)
    return out


def changed(run: pathlib.Path, to: pathlib.Path, **entries: Any) -> pathlib.Path:
    """The weights of the run with other entries in the contract; None takes one out."""
    arrays, words = weights.load_arrays(run / "model.safetensors")
    found = {name: value for name, value in (json.loads(words["contract"]) | entries).items() if value is not ...}
    weights.save_arrays(to, arrays, {"contract": json.dumps(found)})
    return to


# ---- written and read back


def test_what_was_written_is_read_back(run: pathlib.Path) -> None:
    net, images = load_run(run, NETS), noise((16, 3, 12, 20))
    contract = Contract.of(dataset(images), "resnet8")
    settled = {"temperature": net.contract.temperature, "decision": net.contract.decision, "validation": 16}
    contract = replace(contract, **settled)
    assert net.contract == contract and not net.model.training
    assert (contract.channels, contract.height, contract.width) == (3, 12, 20) and net.classes == ("left", "right")
    assert contract.arguments == {"num_classes": 2, "in_channels": 3} and contract.window is None
    assert contract.mean == pytest.approx(images.mean((0, 2, 3)) / 255) and contract.std == pytest.approx(
        images.std((0, 2, 3)) / 255
    )
    (name,) = weights.load_arrays(run / "model.safetensors")[1]
    assert name == "contract" and json.loads(weights.load_arrays(run / "model.safetensors")[1][name])["format"] == 2
    assert load_run(run / "model.safetensors", NETS).contract == contract


def test_a_net_of_ones_own(tmp_path: pathlib.Path) -> None:
    class Mine(nn.Module):
        def __init__(self, width: int) -> None:
            self.conv, self.fc = nn.Conv2d(1, width, 3), nn.Linear(width, 2)
            self.name_parameters()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(ops.global_avg_pool2d(self.conv(x)))

    images = dataset(noise((8, 1, 6, 7)))
    model = Mine(5)
    fit(model, images, replace(TINY, model=""), tmp_path, images, arguments={"width": 5})
    net = load_run(tmp_path, {"Mine": Mine})
    x = net.prepare(*(image[0] for image in images.images))
    np.testing.assert_array_equal(predict(net.model, x), predict(model, x))
    with pytest.raises(ValueError, match=r"'Mine' cannot be built with .*: got an unexpected keyword"):
        load_run(changed(tmp_path, tmp_path / "w", arguments={"width": 5, "depth": 2}), {"Mine": Mine})
    with pytest.raises(ValueError, match="its net answers 2 logits for the 3 classes that it names"):
        load_run(changed(tmp_path, tmp_path / "w", classes=["a", "b", "c"], decision=None), {"Mine": Mine})
    with pytest.raises(ValueError, match=r"its net is 'Mine', which nets does not hold, but 'resnet8', 'googlenet'$"):
        load_run(tmp_path, NETS)


@pytest.mark.ci
def test_arguments_are_kept(tmp_path: pathlib.Path) -> None:
    images = dataset(noise((8, 1, 64, 64)))
    arguments = {"num_classes": 2, "in_channels": 1, "aux": False}
    fit(models.googlenet(**arguments), images, replace(TINY, model="googlenet"), tmp_path, images, arguments=arguments)
    assert load_run(tmp_path, NETS).contract.arguments == arguments


# ---- old, foreign, damaged


def test_an_old_run_is_told_what_to_do_and_that_helps(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arrays, _ = weights.load_arrays(run / "model.safetensors")
    old = tmp_path / "model.safetensors"
    weights.save_arrays(old, arrays, {"data": json.dumps({"classes": ["left", "right"]})})
    with pytest.raises(ValueError, match=r"model\.safetensors: does not say what its net takes.*train.py --weights FILE"):
        load_run(tmp_path, NETS)
    images = dataset(noise((16, 3, 12, 20)))
    fit(models.resnet8(2), images, replace(TINY, weights=str(old)), tmp_path / "again", images)
    assert load_run(tmp_path / "again", NETS).classes == load_run(run, NETS).classes


def test_a_run_without_the_later_settings_goes_on(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings, (arrays, words) = tmp_path / "settings.json", weights.load_arrays(tmp_path / "checkpoint.safetensors")
    facts = json.loads(words["facts"])
    for name in ("channels", "page", "freeze", "select", "patience"):
        settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != name}))
        del facts["settings"][name]
    weights.save_arrays(tmp_path / "checkpoint.safetensors", arrays, words | {"facts": json.dumps(facts)})
    images = dataset(noise((16, 3, 12, 20)))
    fit(models.resnet8(2), images, TINY, tmp_path, images, resume=True)
    assert load_run(tmp_path, NETS).contract == load_run(run, NETS).contract


def test_nothing_to_load(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no trained net: model\.safetensors is missing"):
        load_run(tmp_path, NETS)
    with pytest.raises(FileNotFoundError):
        load_run(tmp_path / "no.safetensors", NETS)
    (tmp_path / "model.safetensors").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="expected a safetensors file, got"):
        load_run(tmp_path, NETS)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 3}, "has format 3, this minidl reads 2; install a newer minidl"),
        ({"format": 1}, "has format 1, this minidl reads 2; resume its training, which writes it anew (examples/train.py --r"),
        ({"format": "1"}, "damaged: expected a mapping with the number of its format"),
        ({"format": True}, "damaged: expected a mapping with the number of its format"),
        ({"format": ...}, "damaged: expected a mapping with the number of its format"),
        ({"mean": ...}, "damaged: contract: mean is missing"),
        ({"window": ...}, "damaged: contract: window is missing"),
        ({"speed": 1}, "damaged: contract: 'speed' is unknown"),
        ({"architecture": 8}, "damaged: architecture: expected the name of a net, got 8"),
        ({"architecture": "os.system"}, "its net is 'os.system', which nets does not hold"),
        ({"arguments": [2, 3]}, "damaged: arguments: expected a mapping of names"),
        ({"arguments": {"num_classes": [2]}}, "damaged: arguments['num_classes']: expected a number, a string, True or False"),
        ({"arguments": {"num_classes": 2, "in_channels": 3, "n": 1}}, "cannot be built with {'num_classes': 2"),
        ({"arguments": {"num_classes": 3, "in_channels": 3}}, "damaged: classes: 2, but the net is built with num_classes=3"),
        ({"arguments": {"num_classes": 2, "in_channels": 1}}, "damaged: channels: 3, but the net is built with in_channels=1"),
        ({"classes": ["left"]}, "damaged: classes: 1, but the net is built with num_classes=2"),
        ({"classes": "ab"}, "damaged: classes: expected a name for each, got 'ab'"),
        ({"classes": [1, 2]}, "damaged: classes: expected a name for each, got [1, 2]"),
        ({"classes": []}, "damaged: classes: expected at least one, got []"),
        ({"classes": ["a", "b", "right"], "arguments": {"num_classes": 3, "in_channels": 3}}, "linear.weight"),
        ({"channels": 1}, "damaged: channels: 1, but the net is built with in_channels=3"),
        ({"channels": 3.0}, "damaged: channels: expected an integer of at least 1, got 3.0"),
        ({"height": 0}, "damaged: height: expected an integer of at least 1, got 0"),
        ({"width": 10**40}, "damaged: width: expected at most 65535"),
        ({"height": None}, "damaged: height: expected an integer of at least 1, got None"),
        ({"dtype": "uint16"}, "damaged: dtype: expected one of ('uint8', 'float32'), got 'uint16'"),
        ({"dtype": ["uint8"]}, "damaged: dtype: expected one of"),
        ({"range": [0, 1]}, "damaged: range: expected (0, 255) of uint8"),
        ({"dtype": "float32", "range": [1, 1]}, "damaged: range: expected (0, 255) of uint8, else (low, high), low < high"),
        ({"range": 255}, "damaged: range: expected 2 finite numbers, got 255"),
        ({"mean": [0.5]}, "damaged: mean: expected 3 finite numbers, got [0.5]"),
        ({"mean": ["a", "b", "c"]}, "damaged: mean[0]: expected a finite number, got 'a'"),
        ({"mean": [0.5, float("nan"), 0.5]}, "damaged: mean[1]: expected a finite number, got nan"),
        ({"std": [1, 0, 1]}, "damaged: std[1]: expected a number in (0, inf), got 0"),
        ({"std": [1, 1e-300, 1]}, "damaged: std: expected numbers that float32 can tell from 0"),
        ({"window": [400, 40]}, "damaged: window: expected (low, high), low < high, got [400, 40]"),
        ({"temperature": 0}, "damaged: temperature: expected a number in (0, inf), got 0"),
        ({"temperature": None}, "damaged: temperature: expected a number in (0, inf), got None"),
        ({"validation": -1}, "damaged: validation: expected an integer of at least 0, got -1"),
        ({"decision": "right"}, "damaged: decision: expected a mapping of target, threshold, sensitivity, specificity, images"),
        ({"decision": {"target": "right"}}, "damaged: decision: threshold is missing"),
        ({"decision": RULE | {"target": "up"}}, "damaged: decision.target: expected one of ('left', 'right'), got 'up'"),
        ({"decision": RULE | {"target": 1}}, "damaged: target: expected the name of a class, got 1"),
        ({"decision": RULE | {"threshold": 1.5}}, "damaged: threshold: expected a number in (0, 1], got 1.5"),
        ({"decision": RULE | {"threshold": float("nan")}}, "damaged: threshold: expected a number in (0, 1], got nan"),
        ({"decision": RULE | {"sensitivity": -0.1}}, "damaged: sensitivity: expected a number in [0, 1], got -0.1"),
        ({"decision": RULE | {"specificity": "1"}}, "damaged: specificity: expected a number in [0, 1], got '1'"),
        ({"decision": RULE | {"images": 0}}, "damaged: images: expected an integer of at least 1, got 0"),
        ({"decision": RULE | {"wanted": 0}}, "damaged: wanted: expected a number in (0, 1], got 0"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_told_in_a_sentence(
    run: pathlib.Path, tmp_path: pathlib.Path, entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        load_run(changed(run, tmp_path / "w.safetensors", **entries), NETS)
    assert str(caught.value).startswith(f"{tmp_path / 'w.safetensors'}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_is_needed(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fields = json.loads(weights.load_arrays(run / "model.safetensors")[1]["contract"])
    assert len(fields) == 17
    for name in fields:
        with pytest.raises(ValueError, match=rf"damaged: .*({name} is missing|its format)"):
            load_run(changed(run, tmp_path / "w.safetensors", **{name: ...}), NETS)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000, '{"format": 2}'])
def test_a_contract_that_is_none(run: pathlib.Path, tmp_path: pathlib.Path, text: str) -> None:
    arrays, _ = weights.load_arrays(run / "model.safetensors")
    weights.save_arrays(tmp_path / "w.safetensors", arrays, {"contract": text})
    with pytest.raises(ValueError, match=r"w\.safetensors: what it says of its net is damaged"):
        load_run(tmp_path / "w.safetensors", NETS)


def test_weights_that_do_not_fit(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _, words = weights.load_arrays(run / "model.safetensors")
    weights.save_arrays(tmp_path / "w.safetensors", models.resnet20(2).state_dict(), words)
    with pytest.raises(
        ValueError, match=r"w\.safetensors: its weights are not those of the 'resnet8' that it names: layer1.1."
    ):
        load_run(tmp_path / "w.safetensors", NETS)


# ---- images


KINDS = [
    (dtype, channels, size)
    for dtype in ("uint8", "uint16", "float32")
    for channels in (1, 3, 5)
    for size in ((48, 48), (12, 20))
]


def of_kind(dtype: str, channels: int, size: tuple[int, int], seed: int = 0) -> Array:
    """(H,W,C) as a file holds it: 8 bits, 12 of 16 bits, or CT numbers."""
    if dtype == "float32":
        return noise((*size, channels), "float32", 2000, seed) - np.float32(1000)
    return noise((*size, channels), dtype, 255 if dtype == "uint8" else 4095, seed)


@pytest.mark.parametrize(("dtype", "channels", "size"), KINDS)
def test_an_image_comes_as_in_training(dtype: str, channels: int, size: tuple[int, int], tmp_path: pathlib.Path) -> None:
    files = [of_kind(dtype, channels, size, seed) for seed in range(4)]
    images = dataset(np.stack([as_held(pixels, None) for pixels in files]))
    contract = Contract.of(images, "resnet8")
    contract = Contract.of_metadata(json.loads(json.dumps(contract.metadata())))
    x = contract.normalize(images.images)
    for n, pixels in enumerate(files):
        np.save(tmp_path / f"{n}.npy", pixels)
        for source in pixels, tmp_path / f"{n}.npy", str(tmp_path / f"{n}.npy"):
            assert contract.normalize(contract.image(source)[None]).tobytes() == x[n : n + 1].tobytes()
    larger = of_kind(dtype, channels, (60, 50))
    assert (contract.image(larger) == as_held(larger, size)).all() and contract.image(larger).shape == (channels, *size)
    unit = contract.unit(images.images)
    assert unit.dtype == np.float32 and 0 <= unit.min() < 0.01 and 0.99 < unit.max() <= 1
    np.testing.assert_allclose(contract.normalize_unit(unit), x, atol=2e-5)
    np.testing.assert_allclose(contract.to_image(x), unit, atol=2e-5)
    assert contract.levels == {"uint8": 255, "uint16": 4095, "float32": None}[dtype]
    shown = contract.shown(images.images)
    assert (shown.dtype == np.uint8) == (dtype == "uint8") and shown.max() >= (200 if dtype == "uint8" else 0.9)


@pytest.mark.parametrize("mode", ["grey", "colour", "grey of 16 bits", "both depths"])
@pytest.mark.parametrize("size", [None, (48, 48), (12, 20)])
def test_a_file_of_a_folder_comes_as_in_training(mode: str, size: tuple[int, int] | None, tmp_path: pathlib.Path) -> None:
    for label in "left", "right":
        (tmp_path / label).mkdir()
        for n in range(3):
            deep = mode == "grey of 16 bits" or (mode == "both depths" and n)
            pixels = noise(
                (18, 24, 3) if mode == "colour" else (18, 24), "uint16" if deep else "uint8", 65535 if deep else 255, n
            )
            Image.fromarray(pixels).save(tmp_path / label / f"{n}.png")
    images = image_folder(tmp_path, size)
    contract = Contract.of(images, "resnet8")
    files = [tmp_path / label / f"{n}.png" for label in ("left", "right") for n in range(3)]
    for file, image in zip(files, images.images, strict=True):
        read = contract.image(file)
        assert (read.dtype, read.tobytes()) == (image.dtype, image.tobytes())


def test_another_depth_is_refused() -> None:
    of_8, of_12, of_16, of_ct = (
        Contract.of(
            dataset(np.stack([as_held(noise((6, 6, 1), dtype, high, seed), None) - minus for seed in range(4)])), "resnet8"
        )
        for dtype, high, minus in (
            ("uint8", 255, np.uint8(0)),
            ("uint16", 4095, np.float32(0)),
            ("uint16", 65535, np.float32(0)),
            ("float32", 2000, np.float32(1000)),
        )
    )
    assert [c.range for c in (of_8, of_16, of_ct)] == [(0, 255), (0, 1), of_ct.range] and of_ct.range[0] < -990
    assert of_12.range == (0, np.float32(4095) / np.float32(65535))
    for pixels in noise((6, 6), "uint16", 4095), noise((6, 6), "float32"):
        with pytest.raises(ValueError, match="the image: expected 8 bits a pixel, as the net was trained on, got more"):
            of_8.image(pixels)
    with pytest.raises(ValueError, match=r"pixels like those that the net was trained on, 0 to 0\.06249, got .* to 1 .16 bits"):
        of_12.image(np.array([[0, 255]], np.uint8))
    with pytest.raises(ValueError, match="pixels like those that the net was trained on"):
        of_12.image(np.array([[0, 65535]], np.uint16))
    with pytest.raises(ValueError, match="pixels like those that the net was trained on, 0 to 1, got 0 to 3000"):
        of_16.image(np.array([[0, 3000]], np.float32))
    for dtype in "uint8", "uint16":
        with pytest.raises(ValueError, match="expected float32, as the net was trained on numbers beyond"):
            of_ct.image(noise((6, 6), dtype))
    assert of_16.image(np.full((6, 6), 255, np.uint8)).max() == 1  # as in a folder with both


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((3, 12, 20), np.uint8), ValueError, r"\(H,W\) or \(H,W,C\) with 3 channels, got shape \(3, 12, 20\)"),
        (np.zeros((12, 20), np.uint8), ValueError, "with 3 channels"),
        (np.zeros((0, 20, 3), np.uint8), ValueError, "with 3 channels"),
        (np.zeros((12, 20, 3)), TypeError, "expected uint8, uint16 or float32, got float64"),
        (np.zeros((12, 20, 3), bool), TypeError, "got bool"),
        (np.full((12, 20, 3), np.nan, np.float32), ValueError, "holds NaN or infinity"),
        ("no/such.png", FileNotFoundError, "such"),
    ],
)  # fmt: skip
def test_what_is_no_image_for_the_net(run: pathlib.Path, source: Any, error: type[Exception], message: str) -> None:
    net = load_run(run, NETS)
    with pytest.raises(error, match=message):
        net.prepare(source)
    with pytest.raises(ValueError, match="sources: expected at least one image, got none"):
        net.prepare()


def test_files_that_are_no_arrays(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    net, file = load_run(run, NETS), tmp_path / "a.npy"
    for content, message in (b"", "is empty, 0 bytes"), (b"\x93NUMPY", "may be cut off or damaged"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            net.prepare(file)
    np.save(file, np.zeros((12, 20, 3)))
    with pytest.raises(ValueError, match=r"a\.npy: expected 8 bits a pixel"):
        net.prepare(file)


def test_ranges() -> None:
    def of(*values: float) -> tuple[float, float]:
        return range_of(np.array(values, np.float32).reshape(1, 1, 1, -1))

    assert range_of(np.zeros((1, 1, 1, 2), np.uint8)) == (0, 255)
    assert of(0, 0.4) == (0, np.float32(32767) / np.float32(65535)) and of(0, 0.5) == (0, 1)
    assert of(0.2, 1) == (0, 1) and of(0, 255 / 65535) == (0, np.float32(255) / np.float32(65535))
    assert of(-1, 1) == (-1, 1) and of(0, 1.5) == (0, 1.5) and of(-1000, 3000) == (-1000, 3000)


def test_both_sets_have_the_same_depth(tmp_path: pathlib.Path) -> None:
    images = dataset(noise((16, 3, 12, 20)))
    floats = dataset((images.images / np.float32(255)).astype(np.float32))
    with pytest.raises(ValueError, match="train_set is uint8, validation float32: expected images of the same depth"):
        fit(models.resnet8(2), images, TINY, tmp_path, floats)


# ---- the size, as a setting


def test_sizes_are_kept_and_told_apart(tmp_path: pathlib.Path) -> None:
    assert Settings(size=(48, 48)).size == 48 and Settings(size=[12, 20]).size == (12, 20)  # type: ignore[arg-type]
    images = lesions(16)
    settings = replace(TINY, size=(12, 20))
    fit(models.resnet8(2), images, settings, tmp_path, images)
    assert Settings.of_run(tmp_path) == settings
    fit(models.resnet8(2), images, settings, tmp_path, images, resume=True)
    with pytest.raises(ValueError, match=r"size was \[12, 20\] and now is \[20, 12\]"):
        fit(models.resnet8(2), images, replace(settings, size=(20, 12)), tmp_path, images, resume=True)
    for wrong in (0, (12, 0), (1, 2, 3), "12", 1.5):
        with pytest.raises((TypeError, ValueError), match="size: expected an integer of at least 1, or a pair of them"):
            Settings(size=wrong)  # type: ignore[arg-type]


def test_a_window_is_part_of_it(tmp_path: pathlib.Path) -> None:
    """Images that were cut to some grey values in training are so ever after, read from files or given as arrays."""
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 4000, (16, 16)).astype(np.uint16)).save(tmp_path / "mine" / name / f"{i}.png")
    images = image_folder(tmp_path / "mine", window=(1000, 1400))
    assert images.window == images.take([0, 3]).window == images.split([0.5, 0.5])[1].window == (1000, 1400)
    fit(models.resnet8(2, 1), images, TINY, tmp_path / "run")
    net = load_run(tmp_path / "run", NETS)
    assert net.contract.window == (1000, 1400)
    file = tmp_path / "mine" / images.names[3]
    x = net.contract.normalize(images.images[3:4])
    np.testing.assert_array_equal(net.prepare(file), x)
    np.testing.assert_array_equal(net.prepare(np.asarray(Image.open(file))), x)
