"""Every method on nets with one logit, several labels, two heads and a value to predict: closed forms, batches, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import Tensor, evaluate, explain, nn, ops
from minidl.array import Array
from minidl.explain import Explanation, Head, grad_cam
from minidl.explain.meaningful import Images, full_size, initial_mask
from minidl.explain.rise import random_mask
from minidl.inference import predict
from minidl.inference.scores import COMPARE, OUTPUTS, Output

from .nets import METHODS, Net, images, linear

pytestmark = pytest.mark.filterwarnings("ignore:Grad-CAM. the map is 0 everywhere")
MASKS = {
    "meaningful_perturbation": (
        explain.meaningful_perturbation,
        {"iterations": 4, "stride": 2, "blur": 2.0, "output": "logit"},
    ),
    "extremal_perturbation": (explain.extremal_perturbation, {"iterations": 3, "areas": (0.2, 0.5), "levels": 3, "blur": 2.0}),
}
ALL = METHODS | MASKS


def twice(logits: Tensor, classes: Array) -> Tensor:
    """A score of one's own"""
    return 2 * logits[:, 0]


def difference(logits: Tensor, classes: Array) -> Tensor:
    return logits[:, 0] - logits[:, 2]


class TwoHeads(nn.Module):
    """A trunk, and two heads with a convolution each; which is asked last is called last."""

    def __init__(self, form: str) -> None:
        rng = np.random.default_rng(0)
        self.form = form
        self.trunk = nn.Conv2d(3, 4, 3, padding=1, rng=rng)
        self.first, self.second = nn.Conv2d(4, 5, 3, padding=1, rng=rng), nn.Conv2d(4, 5, 3, padding=1, rng=rng)
        self.one, self.other = nn.Linear(5, 2, rng=rng), nn.Linear(5, 3, rng=rng)

    def forward(self, x: Tensor) -> Any:
        y = ops.relu(self.trunk(x))
        a, b = (ops.global_avg_pool2d(ops.relu(head(y))) for head in (self.first, self.second))
        heads = {"one": self.one(a), "other": self.other(b)}
        if self.form == "beside":
            return ops.concat([*heads.values()], axis=1)
        return heads if self.form == "dict" else tuple(heads.values()) if self.form == "tuple" else heads[self.form]


NETS: dict[str, tuple[nn.Module, Output]] = {
    "one logit": (Net(classes=1), "sigmoid"),
    "labels": (Net(classes=4), "sigmoid"),
    "a head": (Head(TwoHeads("dict"), "one"), "logit"),
    "a value": (Net(classes=1, seed=2), twice),
    "a difference": (Net(classes=3), difference),
}


def same(one: Explanation, other: Explanation) -> None:
    for name in "map", "raw", "target", "score":
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * float(np.abs(b).max()) + 1e-13, err_msg=name)


@pytest.mark.parametrize("method", [*METHODS, *(pytest.param(name, marks=pytest.mark.ci) for name in MASKS)])
@pytest.mark.parametrize("kind", NETS)
def test_a_batch_is_its_images_and_chunks_do_not_matter(kind: str, method: str) -> None:
    (model, output), (function, quick) = NETS[kind], ALL[method]
    if method == "expected_gradients":
        function, quick = explain.expected_gradients, quick | {"background": images(2, 3, 8, 8, seed=3)}
    model, x = model.to(dtype="float64"), images(3, 3, 8, 8)
    if method == "lrp" and output == "sigmoid":  # which has no rule
        with pytest.raises(ValueError, match=r"Sigmoid .* has no rule"):
            function(model, x, output=output)
        return
    whole = function(model, x, **quick | {"output": output})
    assert np.isfinite(whole.map).all() and np.ptp(whole.map) > 0 and whole.params["output"] == output
    same(function(model, x, **quick | {"output": output, "batch_size": 2}), whole)
    for i in range(3):
        one = function(model, x[i : i + 1], target=whole.target[i : i + 1], **quick | {"output": output})
        parts = (a[i : i + 1] for a in (whole.map, whole.raw, whole.target, whole.score))
        same(one, Explanation(*parts))
    assert whole.logits == predict(model, x[:1]).shape[1]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("output", COMPARE)
def test_one_logit_is_not_compared(method: str, output: str) -> None:
    function, quick = ALL[method]
    with pytest.raises(ValueError, match=f"output: '{output}' compares classes, and the model has one logit; write output="):
        function(Net(classes=1).to(dtype="float64"), images(1, 3, 8, 8), **quick | {"output": output})


@pytest.mark.parametrize("method", ["rise", "meaningful_perturbation"])
def test_their_default_is_a_probability_that_one_logit_has_not(method: str) -> None:
    with pytest.raises(ValueError, match=r"output: 'prob' compares classes, .* write output='sigmoid'"):
        getattr(explain, method)(Net(classes=1), images(1, 3, 8, 8).astype(np.float32))


# ---- closed forms on a linear net with one logit z = w x + b, and on several labels: p = s(z), dp = p (1 - p) w


@pytest.mark.parametrize("K", [1, 3])
def test_gradients_of_a_sigmoid(K: int) -> None:
    model, w, bias = linear(classes=K)
    x, c = images(3, 2, 6, 6), np.array([0, K - 1, 0])
    z = np.einsum("nchw,nchw->n", w[c], x) + bias[c]
    p = 1 / (1 + np.exp(-z))
    slope = (p * (1 - p))[:, None, None, None]
    e = explain.saliency(model, x, c, "sigmoid")
    np.testing.assert_allclose(e.score, p, rtol=1e-12)
    np.testing.assert_allclose(e.raw, slope * w[c], rtol=1e-10)
    np.testing.assert_allclose(explain.grad_times_input(model, x, c, "sigmoid").raw, slope * w[c] * x, rtol=1e-10)
    e = explain.integrated_gradients(model, x, c, "sigmoid")  # along a line through a linear net all pixels share one factor
    share = (p - 1 / (1 + np.exp(-bias[c]))) / (z - bias[c])
    np.testing.assert_allclose(e.raw, share[:, None, None, None] * w[c] * x, rtol=1e-6)
    assert np.abs(e.delta).max() < 1e-8
    np.testing.assert_allclose(evaluate.completeness(model, x, e.raw, 0.0, c, "sigmoid"), 0, atol=1e-8)


def test_black_boxes_of_one_logit() -> None:
    model, w, bias = linear(classes=1)
    x = images(2, 2, 6, 6)
    z = (w * x).sum((1, 2, 3)) + bias
    without = z[:, None, None] - (w * x).sum(1)  # of each pixel
    p = 1 / (1 + np.exp(-z))[:, None, None]
    e = explain.occlusion(model, x, output="sigmoid", window=1)
    np.testing.assert_allclose(e.map, p - 1 / (1 + np.exp(-without)), rtol=1e-9, atol=1e-12)
    assert e.target.tolist() == [0, 0]
    m = np.stack([random_mask((6, 6), 3, 0.5, (0, k)) for k in range(30)])
    s = 1 / (1 + np.exp(-np.einsum("khw,nchw->kn", m, w * x) - bias))
    e = explain.rise(model, x, output="sigmoid", samples=30, grid=3)
    np.testing.assert_allclose(e.map, np.einsum("kn,khw->nhw", s - s.mean(0), m) / (30 * 0.5), rtol=1e-9, atol=1e-12)


def test_a_score_of_ones_own_on_a_linear_net() -> None:
    model, w, _ = linear()
    x = images(2, 2, 6, 6)
    g = w[0] - w[2]
    for target in None, 1, np.array([0, 2]):  # of which this score knows nothing
        np.testing.assert_allclose(explain.saliency(model, x, target, difference).raw, np.broadcast_to(g, x.shape), rtol=1e-12)
    np.testing.assert_allclose(
        explain.occlusion(model, x, output=difference, window=1).map, (g * x).sum(1), rtol=1e-9, atol=1e-12
    )
    e = explain.integrated_gradients(model, x, output=difference)
    np.testing.assert_allclose(e.raw, g * x, rtol=1e-12)
    np.testing.assert_allclose(evaluate.completeness(model, x, e.raw, output=difference), 0, atol=1e-12)
    assert e.params["output"] is difference and e.unit == "integrated gradients, of the difference"


def test_the_masks_of_a_score_of_ones_own() -> None:
    """A negative score, of which no share is a number, judges areas by the gain beyond the blurred image."""
    model, x = Net(classes=1).to(dtype="float64"), images(2, 3, 8, 8)

    def far_below(logits: Tensor, classes: Array) -> Tensor:
        return logits[:, 0] - 1000.0

    function, quick = MASKS["extremal_perturbation"]
    e, plain = function(model, x, **quick | {"output": far_below}), function(model, x, **quick | {"output": twice})
    np.testing.assert_allclose(e.params["kept"], plain.params["kept"], rtol=1e-2, atol=1e-2)  # 1000 moves nothing but rounding
    alone = explain.keep(x, e.raw[:, 0], 3, 2.0)
    nothing = explain.keep(x, np.zeros((2, 8, 8)), 3, 2.0)
    s, s1, s0 = (predict(model, a)[:, 0] for a in (x, alone, nothing))
    want = np.where(s > s0, (s1 - s0) / np.where(s > s0, s - s0, 1), s1 >= s)
    np.testing.assert_allclose(e.params["kept"][:, 0], want, rtol=1e-6, atol=1e-9)


def test_what_suffices_is_judged_by_the_sigmoid() -> None:
    model, x = Net(classes=1).to(dtype="float64"), images(2, 3, 8, 8)
    function, quick = MASKS["extremal_perturbation"]
    for output in "logit", "sigmoid":
        e = function(model, x, **quick | {"output": output})
        p, q = (1 / (1 + np.exp(-predict(model, a)[:, 0])) for a in (x, explain.keep(x, e.raw[:, 1], 3, 2.0)))
        np.testing.assert_allclose(e.params["kept"][:, 1], q / p, rtol=1e-9)


# ---- measures


def test_deletion_and_insertion_of_one_logit() -> None:
    model, w, bias = linear(classes=1)
    x = images(2, 2, 6, 6)
    maps = (w * x).sum(1)
    falls = evaluate.deletion(model, x, maps, steps=36, output="sigmoid").score
    left = np.sort(maps.reshape(2, -1), axis=1)[:, ::-1].cumsum(1)  # what the highest pixels took away
    z = maps.sum((1, 2))[:, None] + bias - np.concatenate([np.zeros((2, 1)), left], 1)
    np.testing.assert_allclose(falls, 1 / (1 + np.exp(-z)), rtol=1e-9)
    np.testing.assert_allclose(evaluate.deletion(model, x, maps, steps=36, output=twice).score, 2 * z, rtol=1e-9, atol=1e-9)
    rises = evaluate.insertion(model, x, maps, steps=36, output="sigmoid").score
    np.testing.assert_allclose(rises[:, -1], falls[:, 0], rtol=1e-9)
    for measure in evaluate.deletion, evaluate.insertion:
        with pytest.raises(ValueError, match="output: 'prob' compares classes, and the model has one logit"):
            measure(model, x, maps, steps=4)


def test_randomization_of_one_logit() -> None:
    model, x = Net(classes=1).to(dtype="float64"), images(2, 3, 8, 8)

    def method(model: nn.Module, x: Array, *, target: Any) -> Explanation:
        return explain.saliency(model, x, target, "sigmoid")

    found = evaluate.randomization(model, x, method, every=3)
    np.testing.assert_allclose(found.similarity[:, 0], 1)
    assert (found.alike < 0.95).all()


# ---- two heads


@pytest.mark.parametrize("form", ["dict", "tuple", "one", "other"])
def test_grad_cam_takes_the_last_layer_that_leads_to_the_score(form: str) -> None:
    x, model = images(2, 3, 8, 8), TwoHeads(form).to(dtype="float64")
    for name, layer, linear_ in ("one", "first", model.one), ("other", "second", model.other):
        if form in ("one", "other") and form != name:
            continue
        key = {"dict": name, "tuple": str(["one", "other"].index(name))}.get(form, "")
        asked = model if form == name else Head(model, key)
        e = grad_cam(asked, x, np.array([0, 1]))
        assert e.params["layer"] == (layer if form == name else f"model.{layer}")
        A = model.trunk(x).data
        A = getattr(model, layer)(np.maximum(A, 0)).data
        g = linear_.weight.data[[0, 1]][:, :, None, None] * (A > 0) / 64
        np.testing.assert_allclose(e.raw[:, 0], (g.mean((2, 3), keepdims=True) * A).sum(1), rtol=1e-9)
        assert e.raw.any((1, 2, 3)).all()


def test_grad_cam_of_heads_whose_logits_stand_beside_each_other() -> None:
    """Whatever the score, the batch and its chunks: a layer of the head asked for, or a sentence."""
    x, model = images(3, 3, 8, 8), TwoHeads("beside").to(dtype="float64")
    for classes, layer, head in (np.array([0, 1, 0]), "first", "one"), (np.array([2, 4, 3]), "second", "other"):
        for size in 1, 32:
            e = grad_cam(model, x, classes, batch_size=size)
            want = grad_cam(TwoHeads(head).to(dtype="float64"), x, classes - (2 if head == "other" else 0))
            assert e.params["layer"] == layer
            np.testing.assert_allclose(e.raw, want.raw, rtol=1e-9, atol=1e-15)
        assert grad_cam(model, x, classes, output="sigmoid").params["layer"] == layer
    for size in 1, 32:
        with pytest.raises(
            ValueError,
            match=r"layer: one layer was expected .* class . by '(first|second)', class . by '(first|second)'; name one",
        ):
            grad_cam(model, x, np.array([0, 1, 2]), batch_size=size)
    assert grad_cam(model, x, np.array([0, 1, 2]), "trunk").raw.any((1, 2, 3)).all()
    assert grad_cam(model, x, np.array([0, 1, 2]), output="prob", layer="second").raw.any((1, 2, 3)).all()


def test_a_layer_that_returns_the_image_itself() -> None:
    model, w, _ = linear()
    model = nn.Sequential(nn.Dropout(0.5), model)
    x = images(1, 2, 6, 6)
    e = grad_cam(model, x, 1)
    assert e.params["layer"] == "0"
    np.testing.assert_allclose(e.raw[:, 0], (w[1].mean((1, 2))[:, None, None] * x).sum(1), rtol=1e-9)


def test_heads_that_no_spatial_layer_leads_to() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            self.conv, self.linear = nn.Conv2d(3, 2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            return {"seen": ops.global_avg_pool2d(self.conv(x)), "blind": self.linear(ops.global_avg_pool2d(x))}

    x = images(1, 3, 8, 8).astype(np.float32)
    assert grad_cam(Head(Flat(), "seen"), x).params["layer"] == "model.conv"
    with pytest.raises(ValueError, match="layer: no layer of this model that leads to the score has an output with spatial"):
        grad_cam(Head(Flat(), "blind"), x)


# ---- captions


def test_captions_name_the_answer_that_the_logit_speaks_of() -> None:
    x = images(2, 3, 8, 8).astype(np.float32)
    one, two = (explain.saliency(Net(classes=K), x, 0, "sigmoid") for K in (1, 2))
    names = ["benign", "malignant"]
    assert [c.split("\n")[0] for c in one.captions(names)] == ["malignant"] * 2
    assert [c.split("\n")[0] for c in one.captions(names[1:])] == ["malignant"] * 2
    assert [c.split("\n")[0] for c in two.captions(names)] == ["benign"] * 2
    assert one.to("cpu").captions(names) == one.captions(names)
    found = explain.evidence_maps(Net(classes=1), x)[""]
    assert found.logits == 1 and found.captions(names)[0].startswith("malignant\nlogit ")
    assert explain.saliency(Net(classes=3), x, 0, difference).captions()[0].startswith("class 0\ndifference ")


def test_all_words_are_tried() -> None:
    assert set(COMPARE) | {"logit", "sigmoid"} == set(OUTPUTS)


def test_a_mask_for_a_score_of_ones_own_begins_as_the_disc_that_takes_it_lowest() -> None:
    """Of a score that is below 0 no disc is the first that leaves 1% of it."""
    model, w, _ = linear(2, 8, 1)
    shown = Images(images(2, 2, 8, 8), "constant", 1.0, 0.0, 1, 0)

    def low(logits: Tensor, classes: Array) -> Tensor:
        return 100 * logits[:, 0] - 1e4  # where 1% of it would be left at the first disc that lowers it

    mask = initial_mask(model, shown, np.zeros(2, np.int64), 2, 0.8, low)
    y, z = np.ogrid[-1.5:2, -1.5:2]
    discs = [(np.hypot(y, z) > radius).astype(float)[None, None] for radius in (0, 1, 2, 3)]  # the first deletes nothing
    M = [full_size(Tensor(disc), (8, 8), 0.8).data for disc in discs[1:]]
    x, _ = shown.unshifted()
    scores = np.stack([(w * x * m).sum((1, 2, 3)) for m in M])  # but for the bias
    for n in range(2):
        np.testing.assert_array_equal(mask[n], discs[1 + scores[:, n].argmin()][0])
    assert scores.argmin(0).any()  # not the first disc for both


def test_a_mask_that_deletes_nothing_is_0_everywhere() -> None:
    """And not the rounding of 1 less 1."""
    model, x = Net(classes=1), images(2, 3, 16, 12).astype(np.float32)
    with pytest.warns(UserWarning, match=r"meaningful perturbation: the map is 0 everywhere for the images \[0, 1\]") as seen:
        e = explain.meaningful_perturbation(model, x, output="sigmoid", iterations=60, lambda1=1e3, stride=2)
    np.testing.assert_array_equal(e.raw, 1)
    np.testing.assert_array_equal(e.map, 0)
    assert seen[0].filename == __file__


def test_the_warning_of_a_rule_without_relu_points_at_the_call() -> None:
    model, _, _ = linear()
    with pytest.warns(UserWarning, match="the model has no ReLU for the rule to act on") as seen:
        explain.guided_backprop(model, images(1, 2, 6, 6))
    assert seen[0].filename == __file__
