"""The stepper's page in a browser, as a reader has it: opened from a file, without a network."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
import models
from minidl import Tensor, explain, gradients, nn, no_grad, ops, view, walk
from minidl.core import pushes
from minidl.flow import BackwardPass, pixel_flow, trace
from minidl.ops.pool import MaxPool2d


class Joined(nn.Module):
    """A residual join, a concat join and a max pooling: all that a cut must get right."""

    def __init__(self, last: str = "relu") -> None:
        rng = np.random.default_rng(3)
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1, rng=rng)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1, rng=rng)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.conv3 = nn.Conv2d(10, 4, 3, stride=2, rng=rng)
        self.linear = nn.Linear(4, 3, rng=rng)
        self.last = {"relu": ops.relu, "sigmoid": ops.sigmoid}[last]
        self.bn1.running_mean[:], self.bn1.running_var[:] = 0.1 * rng.normal(size=5), 0.5 + rng.random(5)
        for conv in (self.conv1, self.conv2, self.conv3):
            assert conv.bias is not None
            conv.bias.data[:] = 0.1 * rng.normal(size=conv.bias.size)
        self.name_parameters().to(dtype="float64")

    def forward(self, x: Tensor) -> Tensor:
        x = ops.relu(self.bn1(self.conv1(x)))
        x = ops.relu(self.conv2(x) + x)
        x = ops.concat([self.pool(x), ops.avg_pool2d(x, 2)])
        return self.linear(ops.global_avg_pool2d(self.last(self.conv3(x))))


def image(size: int = 12) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(1, 3, size, size))


def write(path: pathlib.Path, last: str = "relu", **settings: Any) -> pathlib.Path:
    settings = {"pixels": 0} | settings
    return view.stepper(Joined(last), image(), 1, path / f"{last}.html", picks=[(5, 7), (11, 2)], **settings)


def content(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a page and its bytes."""
    text = path.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    blob = re.search(r'id="blob">(.*?)</script>', text, re.DOTALL)
    assert data and blob
    return json.loads(data[1]), zlib.decompress(base64.b64decode(blob[1]))


def tile(data: dict[str, Any], blob: bytes, row: int, kind: str, channel: int = -1, rule: str = "gradient") -> np.ndarray:
    node = data["nodes"][row]
    at, scale = (node[kind] if kind == "a" else node[kind][rule])[channel + 1]
    h, w = node["size"][:2]
    return np.frombuffer(blob, np.int8, h * w, at).reshape(h, w) * scale / 127 if scale else np.zeros((h, w))


def column(data: dict[str, Any], blob: bytes, name: str) -> np.ndarray:
    """A row for each pixel"""
    (at, kind), n = data["pixels"]["columns"][name], data["pixels"]["count"]
    width = {"at": 3, "flow": len(data["wires"]), "lost": 3 * (len(data["nodes"]) - 1)}.get(name, 1)
    found = np.frombuffer(blob, kind, n * width, at)
    return found if width == 1 else found.reshape(n, width)


def cells_of(data: dict[str, Any], blob: bytes, k: int) -> list[dict[str, Any]]:
    """Those on the strongest path of pixel k, from the image up"""
    at, size = data["pixels"]["cells"]
    cells, number, path = json.loads(blob[at : at + size]), int(column(data, blob, "cell")[k]), []
    while number >= 0:
        path.append(cells[number])
        number = cells[number]["above"]
    return path


def unpacked(data: dict[str, Any], blob: bytes, k: int) -> list[list[Any]]:
    """[reach, counts, stops] of pixel k at every row, None where there is nothing"""
    lengths, levels = column(data, blob, "length"), data["pixels"]["levels"][k >= data["pixels"]["numbered"]]
    at = data["pixels"]["maps"] + int(lengths[:k].sum())
    end, rows, nodes = at + int(lengths[k]), [], data["nodes"]
    for node in nodes:
        kinds = [node, node] + ([nodes[node["sources"][0]]] if node["stops"] else [])
        maps: list[Any] = []
        for shown in kinds:
            h, w, i, j, exponent = (
                struct.unpack("<4Bh", blob[at : at + 6]) if blob[at] not in (0, 255) else (blob[at], *4 * [0])
            )
            if h in (0, 255):
                maps.append("below" if h else None)
                at += 1
                continue
            q = np.frombuffer(blob, np.int8, h * w, at + 6).reshape(h, w) / levels
            whole = np.zeros(shown["size"][:2] if "size" in shown else (1, len(shown["units"])))
            whole[i : i + h, j : j + w] = np.sign(q) * q**2 * 2.0**exponent
            maps.append(whole)
            at += 6 + h * w
        rows.append(maps)
    assert at == end
    for row in reversed(range(len(rows))):
        if isinstance(rows[row][1], str):
            rows[row][1] = rows[row + 1][1]
    return rows


# ---- the numbers of the page, without a browser


def test_what_the_page_is_told(tmp_path: pathlib.Path) -> None:
    data, blob = content(write(tmp_path, pixels=144))
    x, model = Tensor(image(), requires_grad=True), Joined().eval()
    with model.frozen(), ops.unfused():
        y = model(x)[0, 1]
    steps = list(walk(y, leaves={}))
    assert [n["op"] for n in data["nodes"]] == [type(s.op).__name__ for s in steps] + [""]
    assert [(r.step, r.op) for r in trace(y).records] == list(enumerate(n["op"] for n in data["nodes"][:-1]))  # one counting
    gx = gradients(y, [x])[0]
    norms = [float(np.sqrt((g**2).sum())) for g in (*(step.gy for step in steps), gx)]
    assert [n["norm"]["gradient"] for n in data["nodes"]] == pytest.approx(norms)
    at = column(data, blob, "at")
    assert at[[0, 1, 8], 1:].tolist() == [[5, 7], [11, 2], [0, 0]] and data["pixels"]["numbered"] == 9
    assert {(i, j) for _, i, j in at.tolist()} == set(np.ndindex(12, 12)) and len(at) == 144  # every pixel, once
    for (c, i, j), derivative, value in zip(at, column(data, blob, "derivative"), column(data, blob, "x"), strict=True):
        assert derivative == pytest.approx(gx[0, c, i, j], rel=1e-6) and value == pytest.approx(x.data[0, c, i, j], rel=1e-6)
        assert abs(gx[0, c, i, j]) == abs(gx[0, :, i, j]).max()
    g = tile(data, blob, len(steps), "g")
    assert np.abs(g - gx[0].mean(0)).max() <= np.abs(gx[0].mean(0)).max() / 250
    p = tile(data, blob, len(steps), "p")
    assert np.abs(p - (x.data * gx)[0].sum(0)).max() <= np.abs((x.data * gx)[0].sum(0)).max() / 250
    relu = next(k for k, n in enumerate(data["nodes"]) if n["op"] == "ReLU")
    assert data["nodes"][relu]["gates"] == pytest.approx(float((steps[relu].op.gate()).mean()))  # type: ignore[arg-type, union-attr]
    guided = [n["norm"]["guided"] for n in data["nodes"]]
    assert guided[0] == 1 and guided != [n["norm"]["gradient"] for n in data["nodes"]]
    relevance = explain.lrp(Joined(), x.data, 1).raw[0].sum(0)
    assert np.abs(tile(data, blob, len(steps), "p", rule="lrp") - relevance).max() <= np.abs(relevance).max() / 250
    assert data["nodes"][0]["score"]["lrp"] == pytest.approx(y.item()) and "lrp" not in data["nodes"][-1]["g"]
    assert {n["where"].partition(":")[0] for n in data["nodes"][1:-1]} == {"stepper/test_page.py"}
    assert data["nodes"][1]["layer"] == "linear"


def displayed_flows(data: dict[str, Any], blob: bytes) -> np.ndarray:
    """(cuts, pixels), as the page adds them up"""
    flow = column(data, blob, "flow").T
    return np.array([flow[cut["wires"]].sum(0) for cut in data["cuts"]])


def check_flows(data: dict[str, Any], blob: bytes) -> None:
    """At every cut, for every pixel: dS/dx_j, taken from differences of the score itself; and the cut is one."""
    model, x = Joined().eval(), image()

    def score(x: np.ndarray) -> float:
        with no_grad():
            return float(model(Tensor(x)).data[0, 1])

    flows = displayed_flows(data, blob)
    for k, at in enumerate(column(data, blob, "at")):
        step = np.zeros_like(x)
        step[(0, *at)] = 1e-6
        slope = (score(x + step) - score(x - step)) / 2e-6
        assert flows[:, k] == pytest.approx(slope, abs=1e-7), f"pick {k}"
    for row, cut in enumerate(data["cuts"]):
        crossing = {i for i, wire in enumerate(data["wires"]) if wire["from"] >= row and wire["to"] < row}
        assert set(cut["wires"]) == crossing, f"cut {row}"


def test_flows(tmp_path: pathlib.Path) -> None:
    check_flows(*content(write(tmp_path)))


def test_a_swapped_cut_is_found(tmp_path: pathlib.Path) -> None:
    data, blob = content(write(tmp_path))
    two = [k for k, cut in enumerate(data["cuts"]) if len(cut["wires"]) == 2]
    data["cuts"][two[0]], data["cuts"][two[0] + 2] = data["cuts"][two[0] + 2], data["cuts"][two[0]]
    with pytest.raises(AssertionError, match="cut"):
        check_flows(data, blob)
    data, blob = content(write(tmp_path))
    data["cuts"][two[0]]["wires"][1] = data["cuts"][0]["wires"][0]
    with pytest.raises(AssertionError, match="pick"):
        check_flows(data, blob)


def test_a_pool_switch_off_by_one_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = MaxPool2d.indices
    monkeypatch.setattr(MaxPool2d, "indices", lambda op: (true(op)[0], np.minimum(true(op)[1] + 1, op.x_shape[3] - 1)))
    with pytest.raises(AssertionError, match="pick"):
        check_flows(*content(write(tmp_path)))


def test_maps_of_every_pixel(tmp_path: pathlib.Path) -> None:
    """Where a pixel reaches and counts, against forward mode and the gradient: fine where it has a number, else coarse."""
    data, blob = content(write(tmp_path, pixels=144))
    x, model = Tensor(image(), requires_grad=True), Joined().eval()
    with model.frozen(), ops.unfused():
        y = model(x)[0, 1]
    steps = list(walk(y, leaves={}, apart=False))
    row = next(k for k, node in enumerate(data["nodes"]) if node["op"] == "MaxPool2d")
    pool, relu = steps[row].op, steps[row + 1].op
    for k in (0, 1, 8, 9, 60, 143):
        index = (0, *column(data, blob, "at")[k])
        e = np.zeros_like(x.data)
        e[index] = 1
        tangents = {op: (txs, ty) for op, txs, ty in pushes(y, {x: e})}
        t, g, rows = tangents[pool][1][0], steps[row].gy[0], unpacked(data, blob, k)
        levels = 127 if k < 9 else 7
        for found, true in ((rows[row][0], np.abs(t).sum(0)), (rows[row][1], (t * g).sum(0))):
            found, size = np.zeros(true.shape) if found is None else found, np.abs(true).max()
            root = [np.sign(a) * np.sqrt(np.abs(a) / (size or 1)) for a in (found, true)]
            assert np.abs(root[0] - root[1]).max() <= 0.5 * 2**0.5 / levels + 1e-6, k
        stopped = (np.abs(tangents[relu][0][0]) * (tangents[relu][1] == 0))[0].sum(0)
        found = rows[row + 1][2]
        assert (found is not None and found.any()) == stopped.any()
        for node, (reach, _, *_) in zip(data["nodes"], rows, strict=True):
            assert reach is not None or node["name"] != "the image"


def test_losses_and_where_a_pixel_dies(tmp_path: pathlib.Path) -> None:
    """As `pixel_flow` has them, in a byte: 0 is nothing, and 255 is all."""
    data, blob = content(write(tmp_path, pixels=144))
    x, model = Tensor(image(), requires_grad=True), Joined().eval()
    with model.frozen(), ops.unfused():
        backward_pass = BackwardPass(model(x)[0, 1])
    dies, worst = column(data, blob, "dies"), column(data, blob, "worst")
    for k in (0, 8, 9, 77, 143):
        flow = pixel_flow(backward_pass, x, (0, *(int(i) for i in column(data, blob, "at")[k])))
        lost = column(data, blob, "lost")[k].reshape(-1, 3)
        np.testing.assert_allclose(lost / 255, np.array(flow.losses), atol=1 / 255)
        assert ((lost == 255) == (np.array(flow.losses) == 1)).all()
        assert (dies[k], worst[k]) == (-1 if flow.dies is None else flow.dies, flow.worst)


def test_a_dead_pixel(tmp_path: pathlib.Path) -> None:
    """All gates of the first relu are closed: each pixel dies there, and the page says at which step."""
    model = Joined()
    model.bn1.bias.data[:] = -100
    model.conv2.bias.data[:] = -100  # type: ignore[union-attr]
    data, blob = content(view.stepper(model, image(), 1, tmp_path / "p.html", pixels=0))
    row = max(k for k, node in enumerate(data["nodes"]) if node["op"] == "ReLU")
    assert (column(data, blob, "dies") == row).all() and (column(data, blob, "worst") == row).all()
    lost = column(data, blob, "lost").reshape(-1, len(data["nodes"]) - 1, 3)
    assert (lost[:, row] == (255, 0, 0)).all() and not lost[:, :row].any()
    assert not column(data, blob, "derivative").any()


def test_pixels_of_a_large_image(tmp_path: pathlib.Path) -> None:
    """One of each block, that with the largest gradient; those that were asked for are always there."""
    data, blob = content(view.stepper(Joined(), image(), 1, tmp_path / "p.html", picks=[(5, 6)], pixels=20))
    at, g = column(data, blob, "at")[:, 1:].tolist(), np.abs(explain.saliency(Joined(), image(), 1).raw[0]).max(0)
    corners = [(i, j) for i in range(0, 12, 3) for j in range(0, 12, 3)]
    best = [divmod(int(g[i : i + 3, j : j + 3].argmax()), 3) for i, j in corners]
    blocks = {(i + y, j + x) for (i, j), (y, x) in zip(corners, best, strict=True)}
    assert blocks <= {tuple(p) for p in at} and len(at) == len({*blocks, *(tuple(p) for p in at[:9])}) and at[0] == [5, 6]
    data, blob = content(view.stepper(Joined(), image(), 1, tmp_path / "p.html", pixels=0))
    assert data["pixels"]["count"] == data["pixels"]["numbered"] == 9


def test_maps_that_do_not_fit_are_left_out(tmp_path: pathlib.Path) -> None:
    whole = write(tmp_path, pixels=144)
    before, limit = content(whole)[0], whole.stat().st_size - 1000
    data, blob = content(write(tmp_path, pixels=144, limit=limit))
    length = column(data, blob, "length")
    assert length[:9].all() and not length[9:].any()
    assert [n.get("channels") for n in data["nodes"]] == [n.get("channels") for n in before["nodes"]]  # nothing else is missing


def test_code_is_that_of_the_kernels(tmp_path: pathlib.Path) -> None:
    """The lines that run, of the op and of the kernels below it, at the places where they stand."""
    data, _ = content(write(tmp_path))
    found = {name: {part["what"]: part for part in told["code"]} for name, told in data["ops"].items()}
    assert list(found["Conv2d"]) == ["backward", "conv2d_grad_x", "fold", "_padded_size", "push"]  # and no conv2d_grad_w
    assert (
        "max_pool2d_grad" in found["MaxPool2d"]
        and "relu_grad" in found["ReLU"]
        and "channel_affine" in found["BatchNormFrozen"]
    )
    root = pathlib.Path(minidl.__file__).parents[1]
    for parts in found.values():
        for what, part in parts.items():
            file, _, line = part["file"].rpartition(":")
            there = (root / file).read_text(encoding="utf-8").splitlines()[int(line) - 1 :]
            assert f"def {what}(" in there[0] and part["text"].splitlines()[-1].strip() in {t.strip() for t in there[:60]}


NETS: list[Any] = [
    ("resnet8", {}, 16),
    ("resnet18", {}, 40),
    ("plain20", {}, 8),
    pytest.param("vgg11", {}, 32, marks=pytest.mark.ci),
    ("densenet_bc", {"depth": 16, "growth": 4}, 8),
    ("googlenet", {"aux": True}, 33),
    ("googlenet", {"paper": True}, 33),
    pytest.param("inception_v3", {"aux": True}, 75, marks=pytest.mark.ci),
]


@pytest.mark.parametrize(("name", "settings", "size"), NETS)
def test_every_architecture(name: str, settings: dict[str, Any], size: int, tmp_path: pathlib.Path) -> None:
    model = getattr(models, name)(num_classes=4, **settings)
    x = np.random.default_rng(0).normal(size=(3, size, size)).astype(np.float32)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    data, blob = content(view.stepper(model, x, path=tmp_path / "p.html", pixels=0, limit=8_000_000))
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all((v == before[k]).all() for k, v in model.state_dict().items())
    score = data["logits"][data["target"]]
    closed = [cut for cut in data["cuts"] if cut["open"] is None]
    for cut in closed:
        terms = [data["wires"][w]["count"] for w in cut["wires"]]
        assert sum(terms) + cut["biases"] == pytest.approx(score, abs=2e-5 * sum(map(abs, [*terms, 1.0])))
    assert (len(closed) < len(data["cuts"])) == ("paper" in settings) == (data["refused"] is not None)
    for cut in data["cuts"] if data["refused"] is None else []:
        assert cut["relevance"] + cut["taken"] == pytest.approx(score, abs=2e-4 * max(1, abs(cut["relevance"])))
    derivatives = column(data, blob, "derivative")
    assert np.abs(displayed_flows(data, blob) - derivatives).max() < 1e-4 * np.abs(derivatives).max()
    lost = column(data, blob, "lost").reshape(9, -1, 3)
    assert lost.any(axis=(0, 1)).all()
    for k in range(9):
        assert unpacked(data, blob, k)
        for cell in cells_of(data, blob, k):
            assert cell["value"] == pytest.approx(cell["engine"], rel=1e-4, abs=1e-6 * max(1, abs(cell["arrived"])))


TYPED = """
class Scaled(Op):
    def forward(self, x):
        return 3 * x

    def push(self, tx):
        return 3 * tx

    def backward(self, gy):
        return (3 * gy,)
"""


def test_an_op_of_which_nobody_kept_the_text(tmp_path: pathlib.Path) -> None:
    """Typed into a prompt, without a word about it: the page says what is true of every op."""
    scope: dict[str, Any] = {"Op": minidl.Op, "__name__": "__main__"}
    exec(TYPED, scope)
    del minidl.OPS["Scaled"]
    model = Joined()
    model.last = lambda x: scope["Scaled"]()(x)
    data, _ = content(view.stepper(model, image(), 1, tmp_path / "p.html"))
    told = data["ops"]["Scaled"]
    assert told["name"] == "Scaled" and {(part["text"], part["file"]) for part in told["code"]} == {
        ("", "nobody kept the text")
    }
    assert told["forward"] == "y = f(x)" and told["backward"] == "gx[k] = sum_m dy[m]/dx[k] gy[m]"
    assert any(cut["open"] is not None for cut in data["cuts"]) and told["there"] == "A step of the computation."


@pytest.mark.ci
@pytest.mark.parametrize(("name", "size"), [("resnet20", 32), ("resnet18", 224)])
def test_five_megabytes_are_enough(name: str, size: int, tmp_path: pathlib.Path) -> None:
    model = getattr(models, name)(num_classes=10)
    x = np.random.default_rng(0).normal(size=(3, size, size)).astype(np.float32)
    path = view.stepper(model, x, path=tmp_path / "p.html", pixels=0)
    assert path.stat().st_size <= 5_000_000
    assert min(len(n["channels"]) for n in content(path)[0]["nodes"] if n["op"] == "ReLU") == 8  # nothing is left out


def test_the_limit(tmp_path: pathlib.Path) -> None:
    whole = write(tmp_path).stat().st_size
    small = write(tmp_path, limit=whole - 1000).stat().st_size  # 12x12 pixels are small already: there are fewer channels
    assert small < whole - 1000 and len(content(tmp_path / "relu.html")[0]["nodes"][3]["channels"]) < 8
    with pytest.raises(ValueError, match=r"limit: expected at most 20,000 bytes, got .* the biggest node is .* bytes before"):
        write(tmp_path / "..", limit=20_000)
    assert not (tmp_path / ".." / "relu.html").exists()


def test_large_maps_are_averaged(tmp_path: pathlib.Path) -> None:
    model = Joined()
    x = np.random.default_rng(0).normal(size=(3, 100, 70))
    data, blob = content(view.stepper(model, x, 0, tmp_path / "p.html", pixels=0))
    assert data["nodes"][-1]["size"] == [34, 35, 100, 70, 3, 2]
    mean = np.abs(tile(data, blob, len(data["nodes"]) - 1, "a")[0, 0] - x[:, :3, :2].mean())
    assert mean < 0.02 and max(n["size"][0] for n in data["nodes"] if "size" in n) <= 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 3, 12, 12))}, r"x: expected one image, \(C,H,W\) or \(1,C,H,W\), got shape \(2, 3, 12, 12\)"),
        ({"x": image().astype(np.float32)}, "x: the model is float64 on the cpu, x is float32 on the cpu"),
        ({"x": np.full((3, 12, 12), np.nan)}, "x: holds NaN or infinity"),
        ({"target": 3}, "target: expected one of the classes 0 to 2, got 3"),
        ({"classes": ["a", "b"]}, "classes: expected 3 names, got 2"),
        ({"picks": [(12, 0)]}, r"picks: expected a row below 12 and a column below 12, got \(12, 0\)"),
        ({"picks": [(1, 2, 3)]}, r"picks\[0\]: expected 2 integers of at least 0, got \(1, 2, 3\)"),
        ({"picks": [(i, 0) for i in range(10)]}, "picks: expected at most 9 pixels, got 10"),
        ({"pixels": -1}, "pixels: expected an integer of at least 0, got -1"),
        ({"image": np.zeros((3, 5, 5))}, r"image: expected \(C,H,W\) with the height and width of x, .*got \(3, 5, 5\)"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    arguments: dict[str, Any] = {"model": Joined(), "x": image(), "path": tmp_path / "p.html"} | change
    with pytest.raises(ValueError, match=message):
        view.stepper(**arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_no_image_and_no_model(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match="x: expected an array of floats, as the model takes it, got uint8"):
        view.stepper(Joined(), np.zeros((3, 12, 12), np.uint8), path=tmp_path / "p.html")
    with pytest.raises(TypeError, match="target: expected an integer of at least 0, got True"):
        view.stepper(Joined(), image(), True, path=tmp_path / "p.html")
    with pytest.raises(TypeError, match=r"model: expected a minidl\.nn\.Module, got .*, a function; pass the net that"):
        view.stepper(lambda x: x, image(), path=tmp_path / "p.html")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no/such"):
        view.stepper(Joined(), image(), path="no/such/place.html")


# ---- in the browser


Open = Callable[..., Any]


@pytest.fixture
def open_page(open_file: Open) -> Open:
    """Opens a page, and waits until its script has drawn it."""

    def opened(path: pathlib.Path, width: int = 1240, address: str = "", **settings: Any) -> Any:
        page = open_file(path, width, address, **settings)
        page.wait_for_selector("body[data-ready]")
        return page

    return opened


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write(tmp_path_factory.mktemp("stepper"), classes=["benign", "malignant", "neither"], title="a title", pixels=144)


def number(text: str) -> float:
    """A number as the page writes it."""
    front, _, power = text.replace("−", "-").partition("·10")
    return float(front) * 10.0 ** int(power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")) or 0)


@pytest.mark.oracle
def test_nodes_stand_in_the_order_of_the_walk(open_page: Open, path: pathlib.Path) -> None:
    page, (data, _) = open_page(path), content(path)
    rows = page.locator("#graph li button").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == [f"{n['name']} {n['layer']}".strip() for n in data["nodes"]]
    assert page.title() == "a title" and "malignant" in page.inner_text("#verdict")
    joins = page.locator("circle.join").count()
    assert joins == sum(len(n["sources"]) > 1 for n in data["nodes"]) == 2
    wires = page.eval_on_selector_all(".wire", "paths => paths.map((p) => [Number(p.dataset.to), Number(p.dataset.from)])")
    assert wires == [[row, to] for row, n in enumerate(data["nodes"]) for to in n["sources"]]


def until(page: Any, expression: str) -> None:
    """Waits for it, at most five seconds; Playwright's own way evaluates strings in the page, which its policy forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def current(page: Any) -> int:
    return int(page.get_attribute("#graph button[aria-current]", "data-row"))


@pytest.mark.oracle
def test_keys_clicks_and_touch(open_page: Open, path: pathlib.Path) -> None:
    page, (data, _) = open_page(path, has_touch=True), content(path)
    last = len(data["nodes"]) - 1
    for key, row in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0), ("ArrowLeft", 0)]:
        page.keyboard.press(key)
        assert current(page) == row
    page.click("#next")
    assert current(page) == 1 and page.inner_text("#count") == f"step 1 of {last}"
    page.click("#back")
    assert current(page) == 0 and page.is_disabled("#back")
    page.focus("#strip")
    for key, row in [("ArrowRight", 1), ("ArrowUp", 2), ("ArrowDown", 1), ("End", last), ("ArrowRight", last), ("Home", 0)]:
        page.keyboard.press(key)
        assert current(page) == row == int(page.get_attribute("#strip", "aria-valuenow")), key
    page.click("#graph button[data-row='4']")
    assert current(page) == 4 and page.inner_text("#panel h2").startswith(data["nodes"][4]["name"])
    page.keyboard.press("ArrowDown")  # with the focus in the list, which goes along
    assert current(page) == 5 and page.evaluate("document.activeElement.dataset.row") == "5"
    page.click("[data-rule=guided]")
    assert all("no derivative" in page.inner_text(part) for part in ("#ledger", "#flow"))
    assert "stops every gradient below zero" in page.inner_text(".lead")
    page.click("[data-rule=gradient]")
    page.click("[data-pick='1']")
    assert "row 11, column 2" in page.inner_text("#flow h3")
    page.click(".channels button[data-channel='0']")
    assert page.get_attribute(".channels button[data-channel='0']", "aria-pressed") == "true"
    swipe = """(dx) => {
        const panel = document.getElementById("panel");
        const at = (x) => [new Touch({ identifier: 0, target: panel, clientX: x, clientY: 400 })];
        panel.dispatchEvent(new TouchEvent("touchstart", { touches: at(300), bubbles: true }));
        panel.dispatchEvent(new TouchEvent("touchend", { changedTouches: at(300 + dx), bubbles: true }));
    }"""
    page.evaluate(swipe, -120)
    assert current(page) == 6
    page.evaluate(swipe, 120)
    page.evaluate(swipe, 20)
    assert current(page) == 5


@pytest.mark.oracle
def test_digits_and_letters_act_in_the_image_alone(open_page: Open, path: pathlib.Path) -> None:
    """WCAG 2.1.4: what a speech-driven browser types elsewhere changes nothing."""
    page = open_page(path)

    def chosen() -> list[str]:
        return page.eval_on_selector_all(
            "[data-rule], [data-pick]", "all => all.filter((e) => e.ariaPressed === 'true').map((e) => e.textContent)"
        )

    before = chosen()
    assert before == ["1", "gradient"]
    for place in ("body", "#next", "#strip", "#graph [aria-current]", "[data-rule=lrp]", "[data-pick='4']", "#read summary"):
        page.evaluate("document.activeElement.blur()")
        page.focus(place)
        for key in "3", "9", "r", "R":
            page.keyboard.press(key)
        assert chosen() == before, place
    page.focus("#frame")
    for rule in ("guided", "deconvnet", "lrp", "gradient"):
        page.keyboard.press("r")
        assert chosen() == ["1", rule]
    page.keyboard.press("3")
    assert chosen() == ["3", "gradient"] and page.evaluate("document.activeElement.id") == "frame"


@pytest.mark.oracle
def test_what_the_beginner_is_told_to_do(open_page: Open, path: pathlib.Path) -> None:
    """A press in the image, then the button: the walk begins, and the pixel stays, with the keys too from then on."""
    page = open_page(path)
    page.click("#frame", position={"x": 100, "y": 60})
    picked = page.input_value("#pixel")
    page.click("#next")
    page.keyboard.press("ArrowRight")
    assert current(page) == 2 and page.input_value("#pixel") == picked


@pytest.mark.oracle
def test_a_tooltip_says_what_the_data_say(open_page: Open, path: pathlib.Path) -> None:
    page, (data, blob) = open_page(path), content(path)
    for row, kind, (i, j) in [(len(data["nodes"]) - 1, "a", (5, 7)), (3, "g", (1, 0)), (8, "p", (2, 5))]:
        page.evaluate(f"go({row})")
        values = tile(data, blob, row, kind)
        h, w = values.shape
        page.hover(f"canvas[data-kind={kind}]", position=at_cell(page, kind, i, j, h, w))
        place, value = page.inner_text("#tip").split("\n")
        assert place == f"row {i}, column {j}"
        assert number(value) == pytest.approx(values[i, j], rel=1e-3, abs=1e-12)
    page.mouse.move(5, 5)
    assert page.is_hidden("#tip")


def at_cell(page: Any, kind: str, i: int, j: int, h: int, w: int) -> dict[str, float]:
    page.locator(f"canvas[data-kind={kind}]").scroll_into_view_if_needed()
    box = page.locator(f"canvas[data-kind={kind}]").bounding_box()
    return {"x": (j + 0.5) * box["width"] / w, "y": (i + 0.5) * box["height"] / h}


COLOURS = {
    "light": ["#053061", "#4393c3", "#f7f7f7", "#d6604d", "#67001f"],
    "dark": ["#b5deff", "#3a86c8", "#1c2128", "#d8643c", "#ffdcc6"],
}


def colour(t: float, theme: str) -> list[float]:
    """Linear between five colours at -1, -1/2, 0, 1/2, 1."""
    stops = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in COLOURS[theme]])
    return [float(np.interp(t, np.linspace(-1, 1, 5), stops[:, k])) for k in range(3)]


@pytest.mark.oracle
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pixels_have_the_colour_of_their_value(theme: str, open_page: Open, path: pathlib.Path) -> None:
    page, (data, blob) = open_page(path, color_scheme=theme), content(path)
    for row in range(3, len(data["nodes"])):
        page.evaluate(f"go({row})")
        for kind in "agp":
            for rule in ("gradient", "guided", "lrp") if kind == "p" else ("gradient", "guided"):
                page.evaluate(f"state.rule = '{rule}'; draw()")
                values = tile(data, blob, row, kind, rule=rule)
                sizes = np.sort(np.abs(values), axis=None)
                limit = sizes[int(np.ceil(0.995 * sizes.size)) - 1] or sizes[-1] or 1
                assert float(page.get_attribute(f"canvas[data-kind={kind}]", "data-limit")) == pytest.approx(limit, rel=1e-6)
                h, w = values.shape
                canvas = f"document.querySelector('canvas[data-kind={kind}]')"
                got = page.evaluate(f"[...{canvas}.getContext('2d').getImageData(0, 0, {w}, {h}).data]")
                expected = [colour(np.clip(v / limit, -1, 1), theme) for v in values.ravel()]
                np.testing.assert_allclose(np.reshape(got, (h * w, 4))[:, :3], expected, atol=1.01)
    page.evaluate("state.rule = 'gradient'; draw()")


@pytest.mark.oracle
def test_relevance_in_the_switch(open_page: Open, path: pathlib.Path) -> None:
    """At every node the relevance is shown in place of gradients, and its account adds up to the score."""
    page, (data, _) = open_page(path), content(path)
    page.click("[data-rule=lrp]")
    score = data["logits"][data["target"]]
    for row, node in enumerate(data["nodes"]):
        page.evaluate(f"go({row})")
        assert "“lrp” sends relevance back" in page.inner_text(".lead") and "sum of R" in page.inner_text(".lead")
        shown = page.inner_text("#panel")
        assert ("Relevance R" if "size" in node else "relevance R") in shown and "Gradient g" not in shown
        equation = page.inner_text("#ledger")
        assert "relevance here" in equation and "no derivative" not in equation
        cut = data["cuts"][row]
        assert cut["relevance"] + cut["taken"] == pytest.approx(score, rel=1e-8)
        assert node["score"]["lrp"] == pytest.approx(cut["relevance"]) or len(cut["wires"]) > 1
    assert "its share of the score" in page.inner_text(".lead")


@pytest.mark.oracle
def test_relevance_that_is_refused_says_why(open_page: Open, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "sigmoid")
    page, (data, _) = open_page(path), content(path)
    assert page.is_disabled("[data-rule=lrp]")
    assert data["refused"] in page.inner_text(".controls") and data["refused"].startswith("Sigmoid has no rule: ")
    assert "test_page.py" not in data["refused"]  # a page that is passed on tells nothing about a disk
    told = page.locator("p", has_text=data["refused"]).get_attribute("id")
    assert page.get_attribute("[data-rule=lrp]", "aria-describedby") == told
    page.focus("#frame")
    for rule in ("guided", "deconvnet", "gradient"):  # it is passed over
        page.keyboard.press("r")
        assert page.get_attribute(f"[data-rule={rule}]", "aria-pressed") == "true"


def check_displayed_flows(page: Any, data: dict[str, Any], blob: bytes) -> None:
    model, x = Joined().eval(), Tensor(image(), requires_grad=True)
    with model.frozen():
        gx = gradients(model(x)[0, 1], [x])[0]
    for row in range(len(data["nodes"])):
        page.evaluate(f"go({row})")
        for k in (0, 1, 5, 8, *range(9, data["pixels"]["count"], 45)):
            page.evaluate(f"pick({k})")
            shown = number(page.inner_text("#flow [data-total]"))
            assert shown == pytest.approx(gx[(0, *column(data, blob, "at")[k])], rel=2e-5, abs=1e-9), f"row {row}, pick {k}"


@pytest.mark.oracle
def test_displayed_flows(open_page: Open, path: pathlib.Path) -> None:
    check_displayed_flows(open_page(path), *content(path))


@pytest.mark.oracle
@pytest.mark.parametrize("broken", ["cut", "switch"])
def test_displayed_flows_of_a_broken_page(
    broken: str, open_page: Open, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "switch":
        true = MaxPool2d.indices
        monkeypatch.setattr(MaxPool2d, "indices", lambda op: (true(op)[0], np.minimum(true(op)[1] + 1, op.x_shape[3] - 1)))
        path = write(tmp_path)
    else:
        path = write(tmp_path)
        data, _ = content(path)
        two = next(cut for cut in data["cuts"] if len(cut["wires"]) == 2)
        two["wires"][1] = data["cuts"][0]["wires"][0]
        text = path.read_text(encoding="utf-8")
        old = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
        assert old
        path.write_text(text.replace(old[1], json.dumps(data).replace("<", r"\u003c")), encoding="utf-8")
    with pytest.raises(AssertionError, match="row"):
        check_displayed_flows(open_page(path), *content(path))


@pytest.mark.oracle
def test_the_account_adds_up_on_the_page(open_page: Open, path: pathlib.Path) -> None:
    page, (data, _) = open_page(path), content(path)
    for row in range(len(data["nodes"])):
        page.evaluate(f"go({row})")
        terms = [number(t) for t in page.locator("#ledger .term:not(.total) b").all_inner_texts()]
        assert number(page.inner_text("#ledger [data-total]")) == pytest.approx(data["logits"][1], rel=2e-5)
        assert sum(terms) == pytest.approx(data["logits"][1], abs=1e-4)


@pytest.mark.oracle
def test_sums_of_single_cells(open_page: Open, path: pathlib.Path) -> None:
    page, (data, blob) = open_page(path), content(path)
    seen = set()
    for k in (0, 100):
        page.evaluate(f"pick({k})")
        cells = {cell["row"]: cell for cell in cells_of(data, blob, k)}
        for row, node in enumerate(data["nodes"][:-1]):
            page.evaluate(f"go({row})")
            told = data["ops"][node["op"]]
            shown = page.inner_text("#arithmetic")
            assert told["backward"] in shown and told["push"] in shown and told["code"][0]["file"] in shown
            if row not in cells:
                assert "does not go through this step" in shown
                continue
            seen.add(node["op"])
            value = page.locator("#arithmetic [data-total], #arithmetic [data-value]").first.inner_text()
            assert number(value) == pytest.approx(cells[row]["engine"], rel=2e-5)
            if "window" in cells[row]:
                gy, kernel = (np.array(grid) for grid in cells[row]["window"])
                grids = page.locator("#arithmetic .grids table").all()
                products = [number(text) for text in grids[2].locator("td").all_inner_texts()]
                np.testing.assert_allclose(products, (gy * kernel).ravel(), rtol=1e-2)
    assert {"Conv2d", "ReLU", "BatchNormFrozen", "Concat", "Linear", "GlobalAvgPool2d", "GetItem"} <= seen


@pytest.mark.oracle
def test_the_code_stays_open(open_page: Open, path: pathlib.Path) -> None:
    page, (data, _) = open_page(path), content(path)
    row = next(k for k, node in enumerate(data["nodes"]) if node["op"] == "Conv2d")
    page.evaluate(f"go({row})")
    assert not page.is_visible("#code pre")
    page.click("#code summary")
    text = page.inner_text("#code")
    for line in ("def backward(self, gy", "def conv2d_grad_x(gy", "def push(self, tx", "minidl/kernels/reference.py:"):
        assert line in text
    assert "def conv2d_grad_w" not in text  # which is not called: no weight asks for its gradient
    page.keyboard.press("ArrowRight")
    page.evaluate("pick(20)")
    assert page.is_visible("#code pre") and data["ops"][data["nodes"][row + 1]["op"]]["code"][0]["file"] in page.inner_text(
        "#code"
    )
    for shown, to in (False, row), (True, row + 1), (False, row):  # before the browser tells the page of the press
        page.evaluate(f"document.querySelector('#code summary').click(); go({to})")
        assert page.is_visible("#code pre") is shown


@pytest.mark.oracle
def test_the_strip(open_page: Open, path: pathlib.Path) -> None:
    """A bar for every step, of what its byte says, in view wherever the page is scrolled to; a press goes there."""
    page, (data, blob) = open_page(path), content(path)
    last = len(data["nodes"]) - 1
    for k in (0, 70):
        page.evaluate(f"pick({k})")
        gated, zero, summed = column(data, blob, "lost")[k].reshape(last, 3).T / 255
        for kind, part in {"gated": gated, "zero": zero, "summed": (1 - gated - zero) * summed}.items():
            heights = page.eval_on_selector_all(
                f"#strip [data-kind={kind}]", "all => all.map((e) => Number(e.getAttribute('height')))"
            )
            assert heights[:last] == pytest.approx(100 * part, abs=1e-3) and heights[last] == 0
        worst = int(column(data, blob, "worst")[k])
        assert f"step {worst}, {data['nodes'][worst]['name']}" in page.inner_text("#fate")
        page.click("#worst")
        assert current(page) == worst
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    box = page.locator("#strip svg").bounding_box()
    assert 0 <= box["y"] < 300
    page.mouse.click(box["x"] + (6.5) / (last + 1) * box["width"], box["y"] + 10)
    assert current(page) == 6


@pytest.mark.oracle
def test_a_dead_pixel_is_said_to_be_dead(open_page: Open, tmp_path: pathlib.Path) -> None:
    model = Joined()
    model.bn1.bias.data[:] = model.conv2.bias.data[:] = -100  # type: ignore[union-attr]
    path = view.stepper(model, image(), 1, tmp_path / "p.html", pixels=0)
    page, (data, _) = open_page(path), content(path)
    row = max(k for k, node in enumerate(data["nodes"]) if node["op"] == "ReLU")
    assert page.inner_text("#fate").endswith(f"It dies at step {row}, relu: 100% stops at closed gates.")
    page.evaluate("go(3)")
    assert "nothing arrives" in page.inner_text("#lost")


@pytest.mark.oracle
def test_any_pixel_is_picked(open_page: Open, path: pathlib.Path) -> None:
    page, (data, blob) = open_page(path, has_touch=True), content(path)
    at = {tuple(p): k for k, p in enumerate(column(data, blob, "at")[:, 1:].tolist())}
    box = page.locator("#frame").bounding_box()

    def picked(i: int, j: int) -> bool:
        told = f"row {i}, column {j}"
        return (
            told in page.inner_text("#flow h3")
            and told in page.inner_text("#fate")
            and page.input_value("#pixel") == f"{i}, {j}"
        )

    for i, j in [(3, 10), (0, 11), (11, 0)]:
        page.click("#frame", position={"x": (j + 0.5) / 12 * box["width"], "y": (i + 0.5) / 12 * box["height"]})
        assert picked(i, j)
        shown = number(page.inner_text("#flow [data-total]"))
        assert shown == pytest.approx(float(column(data, blob, "derivative")[at[i, j]]), rel=2e-5)
    scrolled = page.evaluate("scrollY")
    for key, (i, j) in [
        ("ArrowUp", (10, 0)),
        ("ArrowRight", (10, 1)),
        ("ArrowDown", (11, 1)),
        ("ArrowDown", (11, 1)),
        ("ArrowLeft", (11, 0)),
    ]:
        page.keyboard.press(key)
        assert picked(i, j) and current(page) == 0 and page.evaluate("scrollY") == scrolled
    page.fill("#pixel", "4, 9")
    page.keyboard.press("Enter")
    assert picked(4, 9) and page.is_hidden("#note")
    for wrong in ("12, 0", "3", "a, b", "-1, 2"):
        page.fill("#pixel", wrong)
        page.keyboard.press("Enter")
        assert "rows 0 to 11 and columns 0 to 11" in page.inner_text("#note") and "row 4, column 9" in page.inner_text(
            "#flow h3"
        )
    page.keyboard.press("ArrowLeft")  # in the field it moves the caret
    assert current(page) == 0


@pytest.mark.oracle
def test_the_nearest_pixel_of_a_large_image(open_page: Open, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, pixels=20)
    page, (data, blob) = open_page(path), content(path)
    at = column(data, blob, "at")[:, 1:]
    i, j = next((i, j) for i, j in np.ndindex(12, 12) if [i, j] not in at.tolist())
    page.fill("#pixel", f"{i} {j}")
    page.keyboard.press("Enter")
    y, x = map(int, page.input_value("#pixel").split(","))
    assert (y - i) ** 2 + (x - j) ** 2 == ((at - (i, j)) ** 2).sum(1).min() and "nearest" in page.inner_text("#note")
    page.focus("#frame")
    for _ in range(20):  # the arrows get on
        page.keyboard.press("ArrowDown")
    assert int(page.input_value("#pixel").split(",")[0]) >= 8


@pytest.mark.oracle
def test_the_address_is_a_view(open_page: Open, path: pathlib.Path) -> None:
    page = open_page(path, address="#step=8&pixel=11,7")
    assert current(page) == 8 and "row 11, column 7" in page.inner_text("#flow h3") and page.is_hidden("#note")
    page.keyboard.press("ArrowRight")
    until(page, "location.hash === '#step=9&pixel=11,7'")
    entries = page.evaluate("history.length")
    page.evaluate("pick(0)")
    until(page, "location.hash === '#step=9&pixel=5,7'")
    assert page.evaluate("history.length") == entries
    page.evaluate("location.hash = '#pixel=2,3&step=4'")
    until(page, "document.getElementById('count').textContent.startsWith('step 4 ')")
    assert "row 2, column 3" in page.inner_text("#flow h3")


@pytest.mark.oracle
@pytest.mark.parametrize(
    "address", ["#step=99", "#step=-1", "#step=1.5", "#pixel=12,0", "#pixel=3", "#step=&pixel=%zz", "#nonsense"]
)
def test_an_address_that_is_wrong(address: str, open_page: Open, path: pathlib.Path) -> None:
    page = open_page(path, address=address)
    assert "Not taken from the address" in page.inner_text("#note") and current(page) == 0
    assert "row 5, column 7" in page.inner_text("#flow h3")
    page.keyboard.press("ArrowRight")
    assert page.is_hidden("#note")


@pytest.mark.oracle
def test_relevance_beside_the_gradient(open_page: Open, path: pathlib.Path) -> None:
    page, (data, blob) = open_page(path), content(path)
    row = 4
    page.evaluate(f"go({row})")
    assert page.locator("canvas[data-kind=r]").count() == 0
    page.click("#relevance")
    values = tile(data, blob, row, "p", rule="lrp")
    assert float(page.get_attribute("canvas[data-kind=r]", "data-limit")) > 0 and values.any()
    page.keyboard.press("ArrowRight")
    assert page.locator("canvas[data-kind=r]").count() == 1 and page.get_attribute("#relevance", "aria-pressed") == "true"


@pytest.mark.oracle
def test_the_page_scrolls_by_keys(open_page: Open, path: pathlib.Path) -> None:
    """Up and down, Home and End are the page's own without a focus; left and right are those of what scrolls sideways."""
    page = open_page(path, width=390)
    page.keyboard.press("End")
    until(page, "scrollY > 500")
    page.keyboard.press("Home")
    until(page, "scrollY === 0")
    for _ in range(10):  # a press is lost while the browser still glides to the top
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(100)
    until(page, "scrollY > 0")
    assert current(page) == 0
    page.evaluate(f"go({len(content(path)[0]['nodes']) - 2})")
    page.click("#code summary")
    page.focus("#code pre")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#code pre').scrollLeft > 0")
    assert current(page) == len(content(path)[0]["nodes"]) - 2


@pytest.mark.oracle
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(theme: str, open_page: Open, path: pathlib.Path) -> None:
    """axe-core, the field's checker of accessibility, all of its rules for WCAG 2.2 AA and its best practices."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    for width in (1240, 390):
        page, (data, _) = open_page(path, width=width, color_scheme=theme, bypass_csp=True), content(path)
        last = len(data["nodes"]) - 1
        for row in (0, 1, 4, 8, last - 1, last):
            page.evaluate(f"go({row})")
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            page.wait_for_timeout(150)  # until colours have changed
            found = axe.run(page, options={"runOnly": tags}).response["violations"]
            assert not found, [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0].get("failureSummary")) for v in found]


@pytest.mark.oracle
def test_targets_are_large_enough(open_page: Open, path: pathlib.Path) -> None:
    """24 by 24 pixels, WCAG 2.5.8; and what is read out begins with what is seen."""
    for width in (390, 1024):
        page = open_page(path, width=width)
        page.evaluate("go(4)")
        for target in page.locator("button, summary, input, [tabindex]").all():
            if target.is_visible():
                box = target.bounding_box()
                assert box["width"] >= 24 and box["height"] >= 24, target.evaluate("(e) => e.outerHTML.slice(0, 200)")
        for button in page.locator("button[aria-label]").all():
            assert button.inner_text().strip() in button.get_attribute("aria-label")
    assert (
        page.evaluate(
            "Math.max(...[...document.querySelectorAll('[role=status], [aria-live]')].map((e) => e.textContent.length))"
        )
        < 100
    )


@pytest.mark.oracle
def test_a_line_that_stays_open(open_page: Open, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "sigmoid")
    page, (data, _) = open_page(path), content(path)
    at = next(row for row, node in enumerate(data["nodes"]) if node["op"] == "Sigmoid")
    for row in range(len(data["nodes"])):
        page.evaluate(f"go({row})")
        assert page.locator("#ledger [data-total]").count() == (row <= at)
        assert page.locator(f"#ledger [data-open='{at}']").count() == (row > at)
    page.evaluate(f"go({at})")
    assert "not piecewise linear" in page.inner_text("#ledger")


@pytest.mark.oracle
def test_names_are_text(open_page: Open, tmp_path: pathlib.Path) -> None:
    evil = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    path = write(tmp_path, title=evil, classes=["a", evil, "{{data}}"])
    page = open_page(path)
    assert page.title() == page.inner_text("#title") == evil and page.locator("img").count() == 0
    assert page.inner_text("#verdict strong") == evil and "{{data}}" in page.inner_text("#logits")


@pytest.mark.oracle
def test_the_policy_forbids_all_but_this_page(open_page: Open, path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    assert policy and policy[1].startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy[1]
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


@pytest.mark.oracle
def test_the_policy_is_enforced(browser: Any, path: pathlib.Path) -> None:
    """A script, a style, an image and a request that somebody might smuggle in: all four are refused."""
    context = browser.new_context()
    page, refused = context.new_page(), list[str]()
    page.on("console", lambda message: refused.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    page.evaluate("""() => {
        const script = document.createElement("script"), style = document.createElement("style"), image = new Image();
        script.textContent = "window.evil = true";
        style.textContent = "body { display: none }";
        image.src = "https://example.org/a.png";
        document.head.append(script, style, image);
        fetch("https://example.org/").catch(() => {});
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("typeof window.evil") == "undefined" and page.is_visible("body")
    for directive in "script-src", "style-src", "img-src", "default-src":
        assert any(directive in text for text in refused), refused
    context.close()


@pytest.mark.oracle
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_no_screen_is_too_small(width: int, theme: str, open_page: Open, path: pathlib.Path) -> None:
    page, (data, _) = open_page(path, width=width, color_scheme=theme), content(path)
    for row in range(len(data["nodes"])):
        page.evaluate(f"go({row})")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"row {row}"
    buttons = [button.bounding_box() for button in page.locator(".controls button").all()]
    assert len(buttons) == 7 and all(b["x"] >= 0 and b["x"] + b["width"] <= width and b["height"] >= 26 for b in buttons)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (theme == "dark")


@pytest.mark.oracle
def test_the_focus_is_seen(open_page: Open, path: pathlib.Path) -> None:
    page = open_page(path)
    seen = set()
    for _ in range(24):
        page.keyboard.press("Tab")
        tag, width, style = page.evaluate("""() => {
            const look = getComputedStyle(document.activeElement);
            return [document.activeElement.tagName, look.outlineWidth, look.outlineStyle];
        }""")
        seen.add(tag)
        assert tag == "BODY" or (width == "3px" and style == "solid")
    assert {"BUTTON", "SUMMARY", "INPUT", "DIV"} <= seen


def test_the_script_makes_no_markup_of_strings() -> None:
    script = (pathlib.Path(view.__file__).parent / "stepper" / "stepper.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp|WebSocket", script)


def test_the_page_of_the_readme_is_of_today(tmp_path: pathlib.Path) -> None:
    """What is not of its weights and its image is as a page of now has it: style, script, formulas, code, lines and layers."""
    shown = pathlib.Path(__file__).parents[3] / "examples" / "images" / "step.html"
    x = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    now = view.stepper(models.resnet8(num_classes=2).eval(), x, path=tmp_path / "now.html", pixels=0)
    (old, _), (new, _) = content(shown), content(now)
    assert old["ops"] == new["ops"]
    for name in "op", "layer", "sources":
        assert [n.get(name) for n in old["nodes"]] == [n.get(name) for n in new["nodes"]], name
    there, here = ([n.get("where") for n in page["nodes"] if n.get("layer")] for page in (old, new))  # layers: in models/
    assert there == here
    for part in (r"<style>.*?</style>", r"<body>.*?<script", r"<script>(.*?)</script>"):
        then, today = (re.findall(part, page.read_text("utf-8"), re.DOTALL) for page in (shown, now))
        assert then == today and len(then) == 1, part
