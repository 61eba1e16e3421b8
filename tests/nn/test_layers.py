import numpy as np
import pytest

from minidl import Tensor, nn, no_grad, ops
from minidl.nn.init import fan_in_uniform
from minidl.optim import SGD


def images(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def rng():
    return np.random.default_rng(3)


# ---- what each layer computes


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(), ops.relu),
        (nn.LeakyReLU(0.2), lambda x: ops.leaky_relu(x, 0.2)),
        (nn.Sigmoid(), ops.sigmoid),
        (nn.Tanh(), ops.tanh),
        (nn.GELU(), ops.gelu),
        (nn.MaxPool2d(3, 2, 1), lambda x: ops.max_pool2d(x, 3, 2, 1)),
        (nn.MaxPool2d(2), lambda x: ops.max_pool2d(x, 2)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), lambda x: ops.max_pool2d(x, 3, 2, ceil_mode=True)),
        (nn.AvgPool2d((3, 2), 2, (1, 0)), lambda x: ops.avg_pool2d(x, (3, 2), 2, (1, 0))),
        (nn.AvgPool2d(3, 2, 1, True, False), lambda x: ops.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AdaptiveAvgPool2d((2, 3)), lambda x: ops.adaptive_avg_pool2d(x, (2, 3))),
        (nn.GlobalAvgPool2d(), ops.global_avg_pool2d),
        (nn.Flatten(), ops.flatten),
        (nn.Identity(), lambda x: x),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_layers_call_their_op_with_their_settings(layer, function):
    x = Tensor(images(2, 3, 8, 7))
    assert np.array_equal(layer(x).data, function(x).data)
    assert layer.parameters() == []


def test_conv2d_passes_every_setting_on():
    layer = nn.Conv2d(4, 6, (3, 1), (2, 1), (1, 0), (2, 1), groups=2, rng=rng())
    layer.bias.data[:] = np.arange(6)
    x = Tensor(images(2, 4, 9, 8))
    assert layer.weight.shape == (6, 2, 3, 1)
    expected = ops.conv2d(x, layer.weight, layer.bias, (2, 1), (1, 0), (2, 1), 2)
    assert np.array_equal(layer(x).data, expected.data)


def test_linear_and_its_initialisation():
    layer = nn.Linear(5, 2, rng=rng(), init=fan_in_uniform)
    assert np.array_equal(layer.weight.data, fan_in_uniform((2, 5), rng()))
    assert np.array_equal(layer.bias.data, np.zeros(2))
    x = images(3, 5)
    assert np.allclose(layer(x).data, x @ layer.weight.data.T, atol=1e-6)


def test_without_bias():
    assert [n for n, _ in nn.Conv2d(1, 2, 3, bias=False).named_parameters()] == ["weight"]
    assert [n for n, _ in nn.Linear(1, 2, bias=False).named_parameters()] == ["weight"]
    assert nn.Linear(1, 2, bias=False)(np.ones((1, 1), np.float32)).shape == (1, 2)


def test_a_generator_makes_the_same_layer_again_and_none_draws_from_one_shared():
    one, other = nn.Conv2d(3, 4, 3, rng=rng()), nn.Conv2d(3, 4, 3, rng=rng())
    assert np.array_equal(one.weight.data, other.weight.data)
    assert not np.array_equal(nn.Linear(3, 4).weight.data, nn.Linear(3, 4).weight.data)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(0, 4, 3), ValueError, "in_channels: expected an integer of at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4.0, 3), TypeError, r"out_channels: expected an integer of at least 1, got 4.0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups: 2 does not divide 3 input and 4 output channels"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, "kernel_size: expected an integer of at least 1, or a pair"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, "stride: expected an integer of at least 1, .* got 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError, "padding: expected an integer of at least 0, .* got -1"),
        (lambda: nn.Conv2d(3, 4, 3, rng=0), TypeError, "rng: expected a numpy.random.Generator"),
        (lambda: nn.Linear(3, 0), ValueError, "out_features: expected an integer of at least 1, got 0"),
        (lambda: nn.BatchNorm2d(0), ValueError, "num_features: expected an integer of at least 1, got 0"),
        (lambda: nn.BatchNorm2d(3, eps=0), ValueError, r"eps: expected a number in \(0, inf\), got 0"),
        (lambda: nn.BatchNorm2d(3, momentum=1.5), ValueError, r"momentum: expected a number in \[0, 1\], got 1.5"),
        (lambda: nn.Dropout(1.0), ValueError, r"p: expected a number in \[0, 1\), got 1.0"),
        (lambda: nn.Dropout(0.5, 7), TypeError, "rng: expected a numpy.random.Generator"),
        (lambda: nn.MaxPool2d(0), ValueError, "kernel_size: expected an integer of at least 1, .* got 0"),
        (
            lambda: nn.AdaptiveAvgPool2d("big"),
            TypeError,
            "output_size: expected an integer of at least 1, or a pair .* got 'big'",
        ),
        (lambda: nn.Sequential(ops.relu), TypeError, "Sequential: expected Modules, got function"),
        (lambda: nn.ModuleList([1]), TypeError, "ModuleList: expected Modules, got int"),
    ],
)
def test_bad_settings(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_kernel_larger_than_the_padded_image_names_both():
    with pytest.raises(ValueError, match=r"a kernel of \(5, 5\) .* is larger than the image \(2, 2\) with padding \(1, 1\)"):
        nn.Conv2d(3, 4, 5, padding=1)(images(1, 3, 2, 2))


# ---- batch norm


def test_batch_norm_in_training_normalises_the_batch_and_follows_its_statistics():
    layer, x = nn.BatchNorm2d(3, momentum=0.25), images(4, 3, 5, 6) * 2 + 1
    y = layer(x).data
    assert np.allclose(y.mean((0, 2, 3)), 0, atol=1e-5) and np.allclose(y.var((0, 2, 3)), 1, atol=1e-4)
    assert np.allclose(layer.running_mean, 0.25 * x.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(layer.running_var, 0.75 + 0.25 * x.var((0, 2, 3), ddof=1), atol=1e-5)
    assert layer.num_batches_tracked == 1 and layer.num_batches_tracked.dtype == np.int64
    assert layer.running_mean.dtype == layer.running_var.dtype == np.float32


def test_batch_norm_in_evaluation_takes_the_running_statistics_and_leaves_them():
    layer, x = nn.BatchNorm2d(3), images(4, 3, 5, 6)
    layer(x * 3 + 1)
    before = layer.state_dict()
    y = layer.eval()(x).data
    mean, var = (before[n][:, None, None] for n in ("running_mean", "running_var"))
    assert np.allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    assert all(np.array_equal(a, before[n]) for n, a in layer.state_dict().items())


def test_batch_norm_in_evaluation_can_be_differentiated_after_more_training():
    layer, x = nn.BatchNorm2d(2), Tensor(images(2, 2, 3, 3), requires_grad=True)
    layer.running_var[:] = 4
    y = layer.eval()(x)
    layer.train()(images(5, 2, 3, 3) * 100)  # the graph of y keeps the statistics that it was made with
    y.backward(np.ones_like(y.data))
    assert np.allclose(x.grad, 1 / np.sqrt(4 + 1e-5))


def test_batch_norm_tracks_statistics_without_a_graph_too():
    layer = nn.BatchNorm2d(2)
    with no_grad():
        layer(images(3, 2, 4, 4))
    assert layer.num_batches_tracked == 1


def test_batch_norm_of_single_values_fails_and_leaves_the_statistics():
    layer = nn.BatchNorm2d(2)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"one value per channel has no variance, got shape \(1, 2, 1, 1\)"):
        layer(images(1, 2, 1, 1))
    with pytest.raises(ValueError, match=r"gamma: expected shape \(3,\)"):
        layer(images(2, 3, 4, 4))
    assert all(np.array_equal(a, before[n]) for n, a in layer.state_dict().items())
    assert layer.eval()(images(1, 2, 1, 1)).shape == (1, 2, 1, 1)


@pytest.mark.oracle
def test_batch_norm_as_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm2d(3, momentum=0.3).to(dtype=np.float64), torch.nn.BatchNorm2d(3, momentum=0.3).double()
    theirs.weight.data[:] = torch.tensor([0.5, -1.0, 2.0])
    theirs.bias.data[:] = torch.tensor([0.1, 0.2, 0.3])
    ours.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    for training in (True, True, True, False):
        for seed in range(2):
            x = images(2, 3, 4, 5, dtype=np.float64, seed=seed) * 3 + 1
            y, expected = ours.train(training)(x).data, theirs.train(training)(torch.from_numpy(x)).detach().numpy()
            assert np.allclose(y, expected, rtol=0, atol=1e-12)
            state = ours.state_dict()
            assert list(state) == list(theirs.state_dict())
            assert all(np.allclose(state[n], t.numpy(), rtol=0, atol=1e-12) for n, t in theirs.state_dict().items())


# ---- dropout


def test_dropout_drops_in_training_and_keeps_the_mean():
    layer = nn.Dropout(0.25, rng())
    y = layer(np.ones((100, 100), np.float32)).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02


def test_dropout_in_evaluation_is_the_identity_and_draws_nothing():
    layer, x = nn.Dropout(0.5, rng()).eval(), Tensor(images(2, 3))
    assert layer(x) is x
    assert layer.rng.bit_generator.state == rng().bit_generator.state


# ---- containers


def test_sequential_runs_in_order_and_is_indexed():
    a, b, c = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)
    net = nn.Sequential(a, b, c)
    x = images(5, 3)
    assert np.array_equal(net(x).data, c(b(a(Tensor(x)))).data)
    assert len(net) == 3 and net[0] is a and net[-1] is c and list(net) == [a, b, c]
    assert isinstance(net[:2], nn.Sequential) and list(net[:2]) == [a, b]
    assert list(net[1:].state_dict()) == ["1.weight", "1.bias"]
    with pytest.raises(IndexError):
        net[3]


def test_module_list_is_looped_over():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    assert layers.append(nn.Linear(2, 3)) is layers
    assert [n for n, _ in layers.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert [layer.weight.shape for layer in layers] == [(2, 2), (2, 2), (3, 2)]
    with pytest.raises(NotImplementedError):
        layers(images(1, 2))


# ---- all of it together


def test_a_tiny_net_learns_its_images_by_heart():
    r = rng()
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False, rng=r), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 3 * 3, 16, rng=r), nn.LeakyReLU(), nn.Linear(16, 4, rng=r, init=fan_in_uniform),
    )  # fmt: skip
    x, labels = images(24, 1, 6, 6), np.arange(24) % 4
    optimiser, losses = SGD(net.parameters(), lr=0.1, momentum=0.9), []
    for _ in range(40):
        loss = ops.cross_entropy(net(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1 and losses[-1] < 0.01
    assert (net(x).data.argmax(1) == labels).all()
