import copy
import importlib.util

import numpy as np
import pytest

from minidl import Parameter, Tensor, nn, ops


class Block(nn.Module):
    """Parameters and buffers of its own, set between children, to tell one order from another."""

    def __init__(self):
        self.first = nn.Linear(3, 4, rng=np.random.default_rng(1))
        self.scale = Parameter(np.ones(4, np.float32))
        self.register_buffer("seen", np.array(0, np.int64))
        self.inner = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False, rng=np.random.default_rng(2)))
        self.shift = Parameter(np.zeros(4, np.float32))
        self.register_buffer("mean", np.zeros(4, np.float32))

    def forward(self, x):
        return self.inner(self.first(x) * self.scale + self.shift)


OWN_FIRST = ["scale", "shift", "seen", "mean", "first.weight", "first.bias", "inner.1.weight"]


def x(n=5):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def test_names_come_in_definition_order_own_before_children():
    block = Block()
    assert [n for n, _ in block.named_parameters()] == ["scale", "shift", "first.weight", "first.bias", "inner.1.weight"]
    assert [n for n, _ in block.named_buffers()] == ["seen", "mean"]
    assert [n for n, _ in block.named_modules()] == ["", "first", "inner", "inner.0", "inner.1"]
    assert [n for n, _ in block.named_children()] == ["first", "inner"]
    assert list(block.state_dict()) == OWN_FIRST
    assert block.parameters()[2] is block.first.weight
    assert block.modules()[0] is block


def test_a_shared_module_is_one_for_training_and_stands_under_each_name_in_the_state():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    net(np.ones((1, 2), np.float32)).backward(np.ones((1, 2), np.float32))
    assert shared.weight.grad is not None


@pytest.mark.parametrize("wrap", [list, tuple, lambda modules: {"a": modules[0]}])
def test_modules_in_a_plain_list_are_no_silent_loss(wrap):
    net = nn.Module()
    net.layers = wrap([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match=r"Module.layers: .* hides its modules .* nn.ModuleList"):
        net.parameters()


def test_lists_of_other_things_are_fine():
    net = nn.Linear(2, 2)
    net.sizes, net.names = [1, 2], ("a",)
    assert len(net.parameters()) == 2


def test_modes_reach_every_module_and_return_the_model():
    block = Block()
    assert block.eval() is block
    assert not any(m.training for m in block.modules())
    assert block.train() is block
    assert all(m.training for m in block.modules())
    assert not block.train(False).inner[0].training


def test_buffers_must_be_arrays():
    with pytest.raises(TypeError, match="buffer 'mean': expected an array, got float"):
        nn.Module().register_buffer("mean", 0.0)


def test_buffer_names_are_those_of_one_module():
    a, b = nn.Module(), nn.Module()
    a.register_buffer("mean", np.zeros(1))
    assert b.buffer_names == () and a.buffer_names == ("mean",)


def test_call_takes_arrays_and_tensors():
    block = Block()
    assert np.array_equal(block(x()).data, block(Tensor(x())).data)
    image = Tensor(x(), requires_grad=True)
    ops.sum(block(image)).backward()
    assert image.grad.shape == (5, 3)


def test_call_with_integers_or_of_another_type_says_what_to_do():
    block = Block()
    with pytest.raises(TypeError, match=r"expected floats, got uint8; write x.to"):
        block(x().astype(np.uint8))
    with pytest.raises(TypeError, match=r"input 0: float64, while \w*.?weight is float32; write x.to\(dtype='float32'\)"):
        block(x().astype(np.float64))
    with pytest.raises(ValueError, match=r"empty, shape \(0, 3\)"):
        block(x(0))


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(x())


# ---- frozen


def test_frozen_gives_the_gradient_of_the_input_alone():
    block, image = Block(), Tensor(x(), requires_grad=True)
    with block.frozen() as inside:
        assert inside is block
        y = block(image)
        assert not any(p.requires_grad for p in block.parameters())
    ops.sum(y).backward()
    assert image.grad is not None
    assert all(p.requires_grad and p.grad is None for p in block.parameters())


def test_frozen_restores_after_an_exception_and_keeps_what_was_frozen_before():
    block = Block()
    block.scale.requires_grad = False
    with pytest.raises(ZeroDivisionError), block.frozen():
        raise ZeroDivisionError
    assert [p.requires_grad for p in block.parameters()] == [False, True, True, True, True]


# ---- to


def test_to_dtype_moves_float_parameters_buffers_and_gradients():
    block = Block()
    ops.sum(block(x())).backward()
    assert block.to(dtype="float64") is block
    assert all(p.dtype == np.float64 and p.grad.dtype == np.float64 for p in block.parameters())
    assert block.mean.dtype == np.float64 and block.seen.dtype == np.int64
    assert block(x().astype(np.float64)).dtype == np.float64


def test_to_keeps_the_parameters_themselves():
    block = Block()
    before = block.parameters()
    block.to("cpu", np.float64)
    assert all(p is q for p, q in zip(before, block.parameters(), strict=True))


def test_to_refuses_what_is_no_float_type_or_place():
    for dtype in (np.int32, np.longdouble):
        with pytest.raises(TypeError, match=f"expected a float type, got {np.dtype(dtype)}"):
            Block().to(dtype=dtype)
    with pytest.raises(ValueError, match=r"device: expected one of .*, got 'tpu'"):
        Block().to("tpu")


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_to_gpu_without_cupy_says_what_is_missing_and_changes_nothing():
    block = Block()
    with pytest.raises(RuntimeError, match="needs CuPy"):
        block.to("gpu", np.float64)
    assert all(p.dtype == np.float32 for p in block.parameters())


def test_evaluating_restores_the_mode_of_every_module():
    block = Block().train()
    children = [module for _, module in block.named_children()]
    children[0].training = False
    with pytest.raises(ZeroDivisionError), block.evaluating() as inside:
        assert inside is block and not any(module.training for module in block.modules())
        raise ZeroDivisionError
    assert block.training and not children[0].training and all(module.training for module in children[1:])


# ---- states


def test_state_dict_is_a_copy():
    block = Block()
    state = block.state_dict()
    state["scale"][:] = 7
    assert np.array_equal(block.scale.data, np.ones(4))
    assert state["seen"].shape == () and isinstance(state["seen"], np.ndarray)


def test_loading_writes_into_the_arrays_that_are_there_and_casts():
    source, block = Block().to(dtype=np.float64), Block()
    for a in source.parameters():
        a.data += 0.25
    source.mean[:] = 3
    source.seen[...] = 5
    before = {n: p.data for n, p in block.named_parameters()}
    assert block.load_state_dict(source.state_dict()) == ([], [])
    for name, p in block.named_parameters():
        assert p.data is before[name] and p.dtype == np.float32
        assert np.array_equal(p.data, source.state_dict()[name].astype(np.float32))
    assert block.seen == 5 and np.array_equal(block.mean, [3] * 4)


def test_everything_that_does_not_fit_is_listed_and_nothing_changes():
    block = Block()
    state = {n: a + 1 for n, a in block.state_dict().items()}
    state["first.weight"] = np.zeros((4, 5))
    state["seen"] = np.float64(2)
    del state["shift"], state["first.bias"]
    state["head.weight"] = np.zeros((1, 2), np.float32)
    state["inner.1.weight"] = "no array"
    before = block.state_dict()
    with pytest.raises(ValueError) as caught:
        block.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "state of Block: 6 of the entries do not fit",
        "  shift: missing, expected (4,) float32",
        "  first.bias: missing, expected (4,) float32",
        "  seen: () float64, expected () int64",
        "  first.weight: (4, 5) float64, expected (4, 3) float32",
        "  inner.1.weight: str, expected (2, 4) float32",
        "  head.weight: unexpected, (1, 2) float32",
    ]
    for name, a in block.state_dict().items():
        assert np.array_equal(a, before[name])


def test_not_strict_loads_what_fits_and_returns_the_rest():
    block = Block()
    state = {"scale": np.full(4, 2.0), "more": np.zeros(1), "first.bias": np.full(4, 3)}
    missing, unexpected = block.load_state_dict(state, strict=False)
    assert missing == ["shift", "seen", "mean", "first.weight", "inner.1.weight"] and unexpected == ["more"]
    assert np.array_equal(block.scale.data, [2] * 4) and np.array_equal(block.first.bias.data, [3] * 4)


def test_not_strict_still_refuses_another_shape():
    with pytest.raises(ValueError, match=r"scale: \(5,\) float64, expected \(4,\) float32"):
        Block().load_state_dict({"scale": np.zeros(5)}, strict=False)


def test_a_state_must_be_a_mapping():
    with pytest.raises(TypeError, match="expected a mapping of names to arrays, got list"):
        Block().load_state_dict([1])


def test_a_deep_copy_is_independent():
    block = Block()
    twin = copy.deepcopy(block)
    twin.scale.data[:] = 9
    assert np.array_equal(block.scale.data, np.ones(4))
    assert list(twin.state_dict()) == OWN_FIRST


# ---- names, generators, repr


def test_name_parameters_gives_errors_the_full_name():
    block = Block().name_parameters()
    assert block.inner[1].weight.name == "inner.1.weight"
    with pytest.raises(ValueError) as caught:
        block(np.ones((2, 7), np.float32))
    assert "first.weight (4, 3)" in caught.value.__notes__[0]


def test_generators_come_once_each_and_make_a_pass_repeat():
    a, b = np.random.default_rng(0), np.random.default_rng(1)
    net = nn.Sequential(nn.Dropout(0.5, a), nn.Sequential(nn.Dropout(0.2, b), nn.Dropout(0.5, a)))
    assert [id(rng) for rng in net.generators()] == [id(a), id(b)]
    states = [rng.bit_generator.state for rng in net.generators()]
    first = net(np.ones((4, 50), np.float32)).data
    assert not np.array_equal(first, net(np.ones((4, 50), np.float32)).data)
    for rng, state in zip(net.generators(), states, strict=True):
        rng.bit_generator.state = state
    assert np.array_equal(first, net(np.ones((4, 50), np.float32)).data)


def test_repr_is_a_tree():
    assert repr(Block()) == (
        "Block(\n  first: Linear(3, 4)\n  inner: Sequential(\n    0: ReLU()\n    1: Linear(4, 2, bias=False)\n  )\n)"
    )
