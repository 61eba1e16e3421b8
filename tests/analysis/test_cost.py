import math

import numpy as np
import pytest

import minidl
import models
from minidl import analysis, nn, ops
from minidl.analysis import cost, watch
from minidl.ops.fused import fusing


def small():
    return nn.Sequential(
        nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 4 * 5, 3),
    )


class Lines(nn.Module):
    """A model of a function and the modules that it calls"""

    def __init__(self, function, **modules):
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


# ---- counts


def test_counts_by_hand():
    table = cost(small(), (4, 8, 9))
    values = 6 * 4 * 5
    assert [(r.name, r.op, r.window, r.shape, r.parameters, r.multiply_adds, r.bytes, r.inputs) for r in table.rows] == [
        ("0", "Conv2d", "3x1 /2, 2 groups", (1, 6, 4, 5), 6 * 2 * 3 + 6, values * 2 * 3, 4 * values, (-1,)),
        ("1", "BatchNormFrozen", "", (1, 6, 4, 5), 12, 0, 4 * values, (0,)),
        ("2", "ReLU", "", (1, 6, 4, 5), 0, 0, 4 * values, (1,)),
        ("4", "Reshape", "", (1, values), 0, 0, 0, (2,)),
        ("5", "Linear", "", (1, 3), 3 * values + 3, 3 * values, 12, (3,)),
    ]
    assert table.parameters == 6 * 2 * 3 + 6 + 12 + 3 * values + 3
    assert table.multiply_adds == values * 6 + 3 * values
    assert table.bytes == 3 * 4 * values + 12


def test_a_batch_costs_its_multiple():
    one, five = cost(small(), (4, 8, 9)), cost(small(), (5, 4, 8, 9))
    assert (five.multiply_adds, five.bytes) == (5 * one.multiply_adds, 5 * one.bytes)
    assert five.parameters == one.parameters and five.rows[0].shape == (5, 6, 4, 5)
    assert one.input_shape == (1, 4, 8, 9) and five.input_shape == (5, 4, 8, 9)


def test_bytes_follow_the_type():
    assert cost(small().to(dtype=np.float64), (4, 8, 9)).bytes == 2 * cost(small(), (4, 8, 9)).bytes


def test_one_function_under_two_names():
    assert minidl.cost is analysis.cost


def test_the_table_is_aligned_and_ends_with_the_totals():
    lines = str(cost(small(), (4, 8, 9))).splitlines()
    assert len({len(line) for line in lines}) == 1
    head = "name   op                       output     receptive field  jump  parameters  multiply-adds  activation bytes"
    assert lines[0] == head
    assert lines[2].split() == ["0", "Conv2d", "3x1", "/2,", "2", "groups", "(1,6,4,5)", "3x1", "2x2", "42", "720", "480"]
    assert lines[-1].split() == ["total", "417", "1,080", "1,452"]
    assert len(lines) == 5 + 4  # rows, head, two rules, total


def test_ops_between_the_layers_belong_to_the_module_that_calls_them():
    def join(self, x):
        early = ops.exp(x)
        y = self.a(ops.relu(x))
        return (y + self.b(ops.relu(y)) * early) @ np.ones((3, 2), np.float32)

    model = Lines(join, a=nn.Linear(3, 3), b=nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    rows = cost(nn.Sequential(nn.Identity(), model), (3,)).rows
    assert [(r.name, r.op, r.inputs) for r in rows] == [
        ("1", "Exp", (-1,)), ("1", "ReLU", (-1,)), ("1.a", "Linear", (1,)), ("1", "ReLU", (2,)), ("1.b.0", "Linear", (3,)),
        ("1.b.1", "Tanh", (4,)), ("1", "Mul", (5, 0)), ("1", "Add", (2, 6)), ("1", "MatMul", (7,)),
    ]  # fmt: skip
    assert rows[-1].multiply_adds == 2 * 3
    assert all(r.receptive_field is None and r.jump is None for r in rows)  # vectors are no images


def test_ops_called_as_functions_count_as_layers_do():
    layer, plain = nn.Conv2d(3, 8, 3, stride=2, dilation=2), nn.ReLU()
    called = Lines(lambda self, x: ops.relu(ops.conv2d(x, layer.weight, layer.bias, stride=2, dilation=2)), hidden=plain)
    (by_function, _), (by_layer, _) = (cost(m, (3, 11, 9)).rows for m in (called, nn.Sequential(layer, plain)))
    assert by_function.multiply_adds == by_layer.multiply_adds == 4 * 3 * 8 * 27
    assert by_function.window == by_layer.window == "3x3 /2, dilation 2x2"
    assert by_function.receptive_field == by_layer.receptive_field == (5, 5)


def test_shared_weights_count_once_and_unused_ones_in_the_total():
    tied = Lines(lambda self, x: self.used(self.used(x)), used=nn.Linear(3, 3), unused=nn.Linear(3, 3))
    table = cost(tied, (3,))
    assert [r.parameters for r in table.rows] == [12, 0] and [r.multiply_adds for r in table.rows] == [9, 9]
    assert table.parameters == 24


def test_a_fused_dense_block_counts_what_its_layers_do():
    norms = [nn.BatchNorm2d(c) for c in (2, 6, 5)]
    convs = [nn.Conv2d(2, 6, 1, bias=False), nn.Conv2d(6, 3, 3, padding=1, bias=False)]
    last = nn.Conv2d(5, 3, 3, padding=1, bias=False)
    layers = [[(norms[0], convs[0]), (norms[1], convs[1])], [(norms[2], last)]]
    block = Lines(lambda self, x: nn.dense_block(x, layers), a=norms[0], b=norms[1], c=norms[2], d=convs[0], e=convs[1], f=last)

    def spelled_out(self, x):
        y = ops.concat([x, convs[1](ops.relu(norms[1](convs[0](ops.relu(norms[0](x))))))])
        return ops.concat([y, last(ops.relu(norms[2](y)))])

    fused, single = cost(block, (2, 7, 8)), cost(Lines(spelled_out, blocks=block), (2, 7, 8))
    assert [r.op for r in fused.rows] == ["DenseBlock"]
    assert fused.multiply_adds == single.multiply_adds == 7 * 8 * (2 * 6 + 9 * 6 * 3 + 9 * 5 * 3)
    assert fused.rows[-1].field == single.rows[-1].field and fused.rows[-1].receptive_field == (5, 5)


# ---- the published nets


KNOWN = {  # pixels, 10^9 multiply-adds as in torchvision's table of weights, the field before the global pooling
    "vgg16": (224, 15.47, 212),
    "googlenet": (224, 1.50, 379),
    "inception_v3": (299, 5.71, 1311),
    "resnet18": (224, 1.81, 435),
    "resnet34": (224, 3.66, 899),
    "resnet50": (224, 4.09, 427),
    "densenet121": (224, 2.83, 2071),
}


@pytest.mark.parametrize("name", KNOWN)
def test_published_costs(name):
    """The fields of Inception-v3 (1311) and VGG-16 (212) are those of Araujo et al. 2019; their 483 for ResNet-50 is that of
    the stride in the first 1x1, and DenseNet's transitions here pool before the convolution: see the next tests."""
    size, giga, field = KNOWN[name]
    table = cost(getattr(models, name)(), (3, size, size))
    saved = 231_211_008 if name == "densenet121" else 0
    assert round((table.multiply_adds + saved) / 1e9, 2) == giga
    last = next(r for r in reversed(table.rows) if r.jump is not None)
    assert (last.receptive_field, last.jump) == ((field, field), (32, 32))
    assert table.rows[-1].receptive_field == (math.inf, math.inf) and table.rows[-1].shape == (1, 1000)
    if name not in ("googlenet", "inception_v3"):  # whose auxiliary heads do not run in evaluation
        assert table.parameters == sum(r.parameters for r in table.rows)


def test_what_densenet_saves_by_pooling_before_the_convolution_of_a_transition():
    rows = cost(models.densenet121(), (3, 224, 224)).rows
    transitions = [r for r in rows if r.op == "Conv2d" and "transition" in r.name]
    assert [r.multiply_adds for r in transitions] == [256 * 128 * 28**2, 512 * 256 * 14**2, 1024 * 512 * 7**2]
    assert 3 * sum(r.multiply_adds for r in transitions) == 231_211_008  # on the pixels before pooling it is four times that


def test_resnet50_with_the_strides_of_the_paper_sees_483_pixels():
    model = models.resnet50()
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert cost(model, (3, 224, 224)).rows[-3].receptive_field == (483, 483)


def test_resnet20_costs_what_is_known():
    table = cost(models.resnet20(), (3, 32, 32))
    assert table.parameters == sum(r.parameters for r in table.rows) == 269_722
    assert table.multiply_adds == 40_551_040  # the 41 million that are quoted for this net
    assert sum(r.op == "Add" for r in table.rows) == 9


@pytest.mark.parametrize("name", ["vgg11_bn", "googlenet", "inception_v3", "resnet8", "resnet101", "plain34", "plain56",
                                  "densenet169", "densenet40_12", "densenet_bc100_12"])  # fmt: skip
def test_other_architectures_with_four_channels(name):
    plain = {"aux": False} if name in ("googlenet", "inception_v3") else {}
    model, size = getattr(models, name)(num_classes=5, in_channels=4, **plain), 75 if name == "inception_v3" else 32
    table = cost(model, (4, size, size))
    assert table.parameters == sum(p.size for p in model.parameters()) == sum(r.parameters for r in table.rows)
    assert table.multiply_adds > 0 and all(r.receptive_field is not None for r in table.rows)
    assert table.rows[-1].shape == (1, 5)
    assert table.rows[0].receptive_field[0] >= 3


# ---- folding


def test_folded_rows_add_up():
    table = cost(models.resnet18(num_classes=7), (3, 64, 64))
    for depth in 1, 2, 3, 9:
        collapsed = table.collapsed(depth)
        assert [sum(getattr(r, k) for r in collapsed.rows) for k in ("parameters", "multiply_adds", "bytes")] == [
            table.parameters, table.multiply_adds, table.bytes,
        ]  # fmt: skip
        assert collapsed.rows[-1] == table.rows[-1] or depth < 9
        assert all(i < n for n, r in enumerate(collapsed.rows) for i in r.inputs)  # still in the order of the computation
    assert table.collapsed(9).rows == table.rows
    blocks = [(r.name, r.op) for r in table.collapsed(2).rows if r.name.startswith("layer")]
    assert blocks == [(f"layer{i}.{j}", "ProjectionBlock") for i in (1, 2, 3, 4) for j in (0, 1)]
    stage = next(r for r in table.collapsed(1).rows if r.name == "layer2")
    assert (stage.shape, stage.receptive_field, stage.inputs) == ((1, 128, 8, 8), (99, 99), (4,))


def test_a_module_that_is_called_twice_is_two_rows():
    twice = Lines(lambda self, x: self.a(ops.exp(self.a(x))), a=nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    rows = cost(twice, (3,)).collapsed(1).rows
    assert [(r.name, r.op, r.parameters, r.inputs) for r in rows] == [
        ("a", "Sequential", 12, (-1,)), ("", "Exp", 0, (0,)), ("a", "Sequential", 0, (1,)),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="depth: expected an integer of at least 1, got 0"):
        cost(twice, (3,)).collapsed(0)


# ---- what it leaves behind


def test_the_model_comes_back_as_it_was():
    net = small()
    net[1].eval()
    net.parameters()[0].requires_grad = False
    state, modes = net.state_dict(), [m.training for m in net.modules()]
    cost(net, (4, 8, 9))
    assert [m.training for m in net.modules()] == modes
    assert all(np.array_equal(a, state[n]) for n, a in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and not net.parameters()[0].requires_grad
    assert not any("forward" in vars(m) for m in net.modules())


def test_the_model_comes_back_as_it_was_after_an_error():
    net, before = small(), fusing()
    with pytest.raises(ValueError, match="groups: 2 does not divide 3 input"):
        cost(net, (3, 8, 9))
    assert all(m.training for m in net.modules()) and fusing() == before
    assert not any("forward" in vars(m) for m in net.modules())


def test_inside_a_watch_of_somebody_else():
    net, seen = nn.Sequential(nn.ReLU()), []
    with watch(net, after=lambda name, y: seen.append(name)):
        assert cost(net, (2,)).rows[0].name == "0"
    assert seen == ["0", ""]


def test_a_model_without_parameters_or_ops():
    assert cost(nn.ReLU(), (2, 2)).multiply_adds == 0
    nothing = cost(nn.Identity(), (2, 2))
    assert (nothing.rows, nothing.parameters, nothing.multiply_adds, nothing.bytes) == ([], 0, 0, 0)
    assert str(nothing).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_bad_input():
    with pytest.raises(TypeError, match=r"model: expected a minidl\.nn\.Module, got .*, a function; pass the net that"):
        cost(ops.relu, (3, 4, 4))
    with pytest.raises(ValueError, match=r"input_shape\[1\]: expected an integer of at least 1, got 0"):
        cost(small(), (3, 0))
    with pytest.raises(ValueError, match="input_shape"):
        cost(small(), ())
    with pytest.raises(TypeError):
        cost(small(), (3, 2.5, 2.5))
