import copy
import math
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import Parameter, Tensor, kernels, nn, ops, optim
from minidl.array import to_cpu, to_device
from tests.gpu import strict_cupy

SHAPES = [(4, 3), (5,), (2, 1, 3, 3), ()]


def parameters(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.normal(size=s).astype(dtype), f"p{i}") for i, s in enumerate(SHAPES)]


def give_gradients(params, seed, skip=()):
    rng = np.random.default_rng(seed)
    for i, p in enumerate(params):
        g = rng.normal(size=p.shape).astype(p.dtype)
        p.grad = None if i in skip else np.asarray(g)


def run(optimiser, params, steps, start=0):
    for k in range(start, start + steps):
        give_gradients(params, seed=k, skip=() if k % 3 else (1,))
        optimiser.lr = 0.1 / (k + 1)
        optimiser.step()


# ---- the same numbers as PyTorch

decay = st.sampled_from([0.0, 0.01, 0.3])
rate = st.floats(1e-4, 0.5)


def compare_with_torch(make_ours, make_theirs, decays, rate=None):
    """Ten steps with drawn gradients, some of which are missing, in two groups with their own weight decay and rate."""
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = [torch.nn.Parameter(torch.from_numpy(p.data.copy())) for p in ours]
    own = {"weight_decay": decays} | ({} if rate is None else {"lr": rate})
    mine = make_ours([{"params": ours[:2]}, {"params": ours[2:], **own}])
    peer = make_theirs(torch, [{"params": theirs[:2]}, {"params": theirs[2:], **own}])
    schedule, first = torch.optim.lr_scheduler.LambdaLR(peer, lambda k: 1 / (k + 1)), mine.lr
    for k in range(10):
        mine.lr = first / (k + 1)
        give_gradients(ours, seed=k, skip=() if k % 3 else (k % 4,))
        for p, q in zip(ours, theirs, strict=True):
            q.grad = None if p.grad is None else torch.from_numpy(p.grad.copy())
        mine.step()
        peer.step()
        schedule.step()
        for p, q in zip(ours, theirs, strict=True):
            assert np.allclose(p.data, q.detach().numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.oracle
@settings(max_examples=25, deadline=None)
@given(rate, st.sampled_from([0.0, 0.5, 0.9]), st.booleans(), decay, decay, st.none() | rate)
def test_sgd_as_pytorch(lr, momentum, nesterov, weight_decay, other_decay, other_rate):
    options = {"lr": lr, "momentum": momentum, "nesterov": nesterov and momentum > 0, "weight_decay": weight_decay}
    compare_with_torch(
        lambda groups: optim.SGD(groups, **options),
        lambda torch, groups: torch.optim.SGD(groups, **options),
        other_decay,
        other_rate,
    )


@pytest.mark.oracle
@settings(max_examples=25, deadline=None)
@given(
    rate,
    st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)]),
    st.sampled_from([1e-8, 1e-2]),
    decay,
    decay,
    st.none() | rate,
)
def test_adamw_as_pytorch(lr, betas, eps, weight_decay, other_decay, other_rate):
    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    compare_with_torch(
        lambda groups: optim.AdamW(groups, **options),
        lambda torch, groups: torch.optim.AdamW(groups, **options),
        other_decay,
        other_rate,
    )


def test_sgd_by_hand():
    p = Parameter(np.array([1.0, -2.0]))
    optimiser = optim.SGD([p], lr=0.1, momentum=0.5, weight_decay=0.1)
    p.grad = np.array([1.0, 1.0])
    optimiser.step()
    assert np.allclose(p.data, [1 - 0.1 * 1.1, -2 - 0.1 * 0.8])
    v, before = np.array([1.1, 0.8]), p.data.copy()
    optimiser.step()
    assert np.allclose(p.data, before - 0.1 * (0.5 * v + 1 + 0.1 * before))


def test_adamw_starts_with_steps_of_lr():
    p = Parameter(np.array([1.0, -2.0, 3.0]))
    optimiser = optim.AdamW([p], lr=0.01, weight_decay=0.0)
    p.grad = np.array([1e-3, -50.0, 7.0])
    optimiser.step()
    assert np.allclose(p.data, [1 - 0.01, -2 + 0.01, 3 - 0.01], atol=1e-6)


def test_float32_stays_float32_and_changes_in_place():
    params = parameters(np.float32)
    optimisers = optim.SGD(params, 0.1, 0.9, True, 0.1), optim.AdamW(params, 0.1)
    arrays = [p.data for p in params]
    for optimiser in optimisers:
        run(optimiser, params, 3)
    assert all(p.data is a and a.dtype == np.float32 for p, a in zip(params, arrays, strict=True))


def test_a_parameter_without_gradient_stays_and_does_not_age():
    params = parameters()
    before = params[1].data.copy()
    optimiser = optim.AdamW(params, 0.1)
    give_gradients(params, 0, skip=(1,))
    optimiser.step()
    assert np.array_equal(params[1].data, before)
    assert optimiser.state_dict()["updates"].tolist() == [1, 0, 1, 1]


def test_zero_grad_lets_go():
    params = parameters()
    give_gradients(params, 0)
    optim.SGD(params, 0.1).zero_grad()
    assert all(p.grad is None for p in params)


# ---- a learning rate for each group


def test_a_group_has_its_learning_rate_and_a_schedule_scales_it():
    body, head = Parameter(np.zeros(3), "body"), Parameter(np.zeros(2), "head")
    optimiser = optim.SGD([{"params": [body], "lr": 0.02}, {"params": [head]}], lr=0.2)
    for lr, moved in (0.2, (0.02, 0.2)), (0.1, (0.01, 0.1)), (0.0, (0.0, 0.0)):
        before = body.data.copy(), head.data.copy()
        optimiser.lr, body.grad, head.grad = lr, np.ones(3), np.ones(2)
        optimiser.step()
        np.testing.assert_allclose(before[0] - body.data, moved[0], rtol=1e-12)
        np.testing.assert_allclose(before[1] - head.data, moved[1], rtol=1e-12)


def test_parameters_side_by_side_with_other_rates_are_updated_apart(monkeypatch):
    params = parameters()
    optimiser = optim.SGD([{"params": params[:2]}, {"params": params[2:], "lr": 0.01}], 0.1)
    calls = count_calls(monkeypatch, optimiser)
    run(optimiser, params, 1, start=3)  # all have gradients but the second
    run(optimiser, params, 1, start=1)
    assert calls[:2] == [12, 19] and len({id(p.data.base) for p in params}) == 1


def test_the_state_keeps_the_learning_rates_of_groups():
    """Of a state of other groups, those that it was made with."""
    make = lambda params, lr: optim.SGD([{"params": params[:2], "lr": lr}, {"params": params[2:]}], 0.1, 0.9)  # noqa: E731
    first, second = parameters(), parameters()
    saved = make(first, 0.01)
    run(saved, first, 2)
    resumed = make(second, 0.1)
    for p, q in zip(first, second, strict=True):
        q.data[...] = p.data
    resumed.load_state_dict(saved.state_dict())
    assert resumed.lr_scale.tolist() == pytest.approx([0.1, 0.1, 1, 1])
    for optimiser, params in (saved, first), (resumed, second):
        run(optimiser, params, 2, start=2)
    assert all(np.array_equal(p.data, q.data) for p, q in zip(first, second, strict=True))
    before = resumed.state_dict()
    with pytest.raises(ValueError, match=r"lr_scale: expected finite numbers of at least 0, got \[-1"):
        resumed.load_state_dict(before | {"lr_scale": np.array([-1.0, 1, 1, 1])})


# ---- state

MAKERS = [
    lambda params: optim.SGD(params, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda params: optim.AdamW(params, 0.1, weight_decay=0.1),
]


@pytest.mark.parametrize("make", MAKERS, ids=["sgd", "adamw"])
def test_a_resumed_run_gives_the_same_bits(make):
    straight = parameters(np.float32)
    run(make(straight), straight, 10)
    first = parameters(np.float32)
    optimiser = make(first)
    run(optimiser, first, 4)
    state, second = optimiser.state_dict(), [Parameter(p.data.copy()) for p in first]
    run(optimiser, first, 2, start=4)  # the state is a copy: what goes on here does not reach it
    resumed = make(second)
    resumed.load_state_dict(state)
    run(resumed, second, 6, start=4)
    assert all(np.array_equal(p.data, q.data) for p, q in zip(straight, second, strict=True))


def test_states_have_flat_names():
    assert list(optim.SGD(parameters(), 0.1).state_dict()) == ["updates", "lr_scale", *(f"momentum.{i}" for i in range(4))]
    slots = [f"{n}.{i}" for n in "mv" for i in range(4)]
    assert list(optim.AdamW(parameters(), 0.1).state_dict()) == ["updates", "lr_scale", *slots]


def test_a_state_of_another_optimiser_is_refused_and_nothing_changes():
    params = parameters()
    optimiser = optim.SGD(params, 0.1)
    run(optimiser, params, 2)
    before = optimiser.state_dict()
    with pytest.raises(ValueError) as caught:
        optimiser.load_state_dict(optim.AdamW(params[:3], 0.1).state_dict())
    message = str(caught.value)
    assert "state of SGD: 12 of the entries do not fit" in message
    assert "momentum.3: missing, expected () float64" in message and "m.0: unexpected, (4, 3) float64" in message
    assert "updates: (3,) int64, expected (4,) int64" in message
    assert all(np.array_equal(a, before[n]) for n, a in optimiser.state_dict().items())


# ---- side by side in one vector


def one_by_one(make, params):
    """The optimiser, of which every parameter is updated by a call of its own"""
    optimiser = make(params)
    for p in params:
        p.data = p.data.copy()
    return optimiser


def count_calls(monkeypatch, optimiser):
    """A list that grows by the size of what is updated, with every call of the kernel"""
    calls, update = [], optimiser.update
    monkeypatch.setattr(optimiser, "update", lambda p, *args: (calls.append(p.size), update(p, *args)))
    return calls


@pytest.mark.parametrize("name", ["reference", "compiled"])
@pytest.mark.parametrize("make", MAKERS, ids=["sgd", "adamw"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_together_the_bits_are_those_of_each_alone(make, name, data):
    """Also where gradients are missing, so that the numbers of updates differ, and where arrays are given and taken away"""
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shapes = data.draw(st.lists(st.sampled_from([*SHAPES, (7, 3), (40, 1000)]), min_size=1, max_size=7))
    rng = np.random.default_rng(0)
    start = [rng.normal(size=s).astype(dtype) for s in shapes]
    some, others = ([Parameter(np.asarray(a.copy())) for a in start] for _ in range(2))
    half = len(shapes) // 2
    rates = {"lr": data.draw(st.sampled_from([0.1, 0.01, 0.0]))}
    groups = lambda params: [{"params": params[:half], "weight_decay": 0.3}, {"params": params[half:], **rates}]  # noqa: E731
    together, alone = make(groups(some)), one_by_one(lambda params: make(groups(params)), others)
    with kernels.use(name):
        for k in range(4):
            skip = data.draw(st.sets(st.integers(0, len(shapes) - 1), max_size=len(shapes) - 1))
            for params in (some, others):
                give_gradients(params, k, skip)
            replaced = some[data.draw(st.integers(0, len(shapes) - 1))]
            if data.draw(st.booleans()):
                replaced.data = np.asarray(replaced.data.copy())
            together.step()
            alone.step()
            for p, q in zip(some, others, strict=True):
                np.testing.assert_array_equal(p.data, q.data)
    for a, b in zip(together.state_dict().values(), alone.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_call_for_all_that_are_alike(monkeypatch):
    params = parameters()
    optimiser = optim.SGD([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1}], 0.1)
    calls = count_calls(monkeypatch, optimiser)
    run(optimiser, params, 1)  # without a gradient of the second
    assert calls == [12, 19]
    run(optimiser, params, 1, start=1)
    assert calls[2:] == [12, 5, 19]  # the second has had fewer updates
    optimiser = optim.AdamW(params, 0.1)
    calls = count_calls(monkeypatch, optimiser)
    run(optimiser, params, 1, start=1)
    assert calls == [36]
    assert len({id(p.data.base) for p in params}) == 1


def test_what_is_large_or_shared_stays_where_it_is(monkeypatch):
    monkeypatch.setattr("minidl.optim.flat.LARGE", 17)
    params = [*parameters(), *parameters(), Parameter(np.ones(3, np.float32))]
    params[5].data = params[1].data
    arrays = [p.data for p in params]
    optimiser = optim.SGD(params, 0.1)
    calls = count_calls(monkeypatch, optimiser)
    run(optimiser, params, 1, start=1)
    assert calls == [12, 5, 18, 13, 5, 18, 1, 3]
    assert [i for i, p in enumerate(params) if p.data is not arrays[i]] == [3, 4]


def test_models_are_copied_pickled_loaded_and_given_arrays():
    """As if every parameter were alone, whatever happens between the steps"""

    def happen(k, params, optimiser):
        if k == 1:
            params, optimiser = copy.deepcopy((params, optimiser))
        if k == 2:
            params, optimiser = pickle.loads(pickle.dumps((params, optimiser)))
        if k == 3:
            params[0].data, params[2].data = params[0].data * 2, params[2].data.astype(np.float64).astype(np.float32)
        if k == 4:
            net = nn.Module()
            net.a, net.b, net.c, net.d = params
            net.load_state_dict({name: a + 1 for name, a in net.state_dict().items()})
        if k == 5:
            other = optim.AdamW(params, 0.1)
            give_gradients(params, 50)
            other.step()
        if k == 6:
            params[1].data = params[1].data[::-1]
            params[1].data = np.ascontiguousarray(params[1].data)
        return params, optimiser

    found = []
    for wrap in (lambda params: MAKERS[0](params), lambda params: one_by_one(MAKERS[0], params)):
        params = parameters(np.float32)
        optimiser = wrap(params)
        for k in range(8):
            before = copy.deepcopy([p.data for p in params])
            was, (params, optimiser) = params, happen(k, params, optimiser)
            run(optimiser, params, 1, start=k)
            if was is not params:  # the original does not follow its copy
                assert all(np.array_equal(p.data, a) for p, a in zip(was, before, strict=True))
        found.append([*(p.data for p in params), *optimiser.state_dict().values()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_copies_are_side_by_side_again(monkeypatch):
    params, optimiser = copy.deepcopy((params := parameters(), optim.SGD(params, 0.1)))
    calls = count_calls(monkeypatch, optimiser)
    run(optimiser, params, 1, start=1)
    assert calls == [36]


def test_an_error_comes_before_any_change():
    params = parameters()
    optimiser = optim.SGD(params, 0.1)
    give_gradients(params, 0)
    params[3].grad = np.zeros(2)
    before = [p.data.copy() for p in params]
    with pytest.raises(ValueError, match=r"gradient of parameter 3 \(p3, \(\)\) is \(2,\)"):
        optimiser.step()
    assert all(np.array_equal(p.data, a) for p, a in zip(params, before, strict=True))
    assert optimiser.state_dict()["updates"].tolist() == [0, 0, 0, 0]


def test_on_the_gpu_they_lie_side_by_side_too(monkeypatch):
    """On the strict stand-in for CuPy; and nothing of it meets an array of NumPy"""
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    found = []
    for device in ("cpu", "gpu"):
        net = nn.Sequential(nn.Linear(3, 4, rng=np.random.default_rng(0)), nn.Linear(4, 2, rng=np.random.default_rng(1)))
        optimiser = MAKERS[1](net.to(device).parameters())
        calls = count_calls(monkeypatch, optimiser)
        with kernels.use("reference"):
            for k in range(3):
                optimiser.zero_grad()
                ops.sum(net(to_device(np.full((2, 3), 1 + k, np.float32), device)) ** 2).backward()
                optimiser.step()
        assert calls == [26] * 3
        found.append([to_cpu(p.data) for p in net.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    with kernels.use("reference"), pytest.raises(ValueError, match=r"gradient of .* on the gpu; make the optimiser after"):
        net.parameters()[0].grad = np.zeros((4, 3), np.float32)
        optimiser.step()


# ---- bad input


@pytest.mark.parametrize("lr", [math.nan, math.inf, -math.inf, -0.1])
def test_learning_rates_that_make_no_sense(lr):
    params = parameters()
    with pytest.raises(ValueError, match=r"lr: expected a number in \[0, inf\), got"):
        optim.SGD(params, lr)
    optimiser = optim.AdamW(params, 0.1)
    with pytest.raises(ValueError, match="lr: expected"):
        optimiser.lr = lr
    assert optimiser.lr == 0.1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD(p, "0.1"), TypeError, r"lr: expected a number in \[0, inf\), got '0.1'"),
        (lambda p: optim.SGD(p, 0.1, momentum=-1), ValueError, "momentum: expected"),
        (lambda p: optim.SGD(p, 0.1, nesterov=True), ValueError, "nesterov: needs a momentum above 0"),
        (lambda p: optim.SGD(p, 0.1, weight_decay=math.nan), ValueError, "weight_decay: expected"),
        (lambda p: optim.AdamW(p, 0.1, betas=(0.9, 1.0)), ValueError, r"betas\[1\]: expected a number in \[0, 1\), got 1.0"),
        (lambda p: optim.AdamW(p, 0.1, eps=-1e-8), ValueError, "eps: expected"),
        (lambda p: optim.SGD([], 0.1), ValueError, "params: expected at least one parameter, got none"),
        (lambda p: optim.SGD([*p, p[1]], 0.1), ValueError, r"params: parameter 4 \(p1, \(5,\)\) comes twice"),
        (lambda p: optim.SGD([{"params": p}, {"params": p[:1]}], 0.1), ValueError, r"\(p0, \(4, 3\)\) comes twice"),
        (lambda p: optim.SGD(p[0], 0.1), TypeError, "put it into a list"),
        (lambda p: optim.SGD({"params": p}, 0.1), TypeError, "put it into a list"),
        (lambda p: optim.SGD([Tensor(1.0)], 0.1), TypeError, "params: expected Parameters, got Tensor"),
        (lambda p: optim.SGD([{"params": p, "speed": 1}], 0.1), ValueError, r"expected groups .* got \['params', 'speed'\]"),
        (lambda p: optim.SGD([{"params": p, "lr": -1}], 0.1), ValueError, r"lr: expected a number in \[0, inf\), got -1"),
        (lambda p: optim.SGD([{"params": p, "lr": 0.1}], 0), ValueError, "lr: expected a number above 0 where a group has"),
        (lambda p: optim.SGD([{"params": p[0]}], 0.1), TypeError, "params: expected a list of parameters in each group"),
        (lambda p: optim.SGD([{"params": p[:1]}, p[1]], 0.1), ValueError, "expected groups .* got Parameter"),
        (lambda p: optim.SGD([{"params": p, "weight_decay": -1}], 0.1), ValueError, "weight_decay: expected"),
    ],
)
def test_bad_settings(make, error, message):
    with pytest.raises(error, match=message):
        make(parameters())


def test_a_gradient_of_another_shape_or_a_model_that_was_moved():
    params = parameters()
    optimiser = optim.SGD(params, 0.1)
    params[0].grad = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"gradient of parameter 0 \(p0, \(4, 3\)\) is \(3, 4\) float64, expected \(4, 3\)"):
        optimiser.step()
    net = nn.Linear(2, 2)
    optimiser = optim.SGD(net.parameters(), 0.1)
    net.to(dtype=np.float64)
    ops.sum(net(np.ones((1, 2)))).backward()
    with pytest.raises(ValueError, match=r"the momentum of .* make the optimiser after model.to"):
        optimiser.step()


# ---- groups, clipping


def test_biases_and_batch_norm_do_not_decay():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).name_parameters()
    weights, others = optim.decay_groups(net, 0.5)
    assert [p.name for p in weights["params"]] == ["0.weight", "3.weight"] and weights["weight_decay"] == 0.5
    assert [p.name for p in others["params"]] == ["0.bias", "1.weight", "1.bias", "3.bias"] and others["weight_decay"] == 0
    before = net.state_dict()
    optimiser = optim.SGD([weights, others], lr=0.1)
    for p in net.parameters():
        p.grad = np.zeros_like(p.data)
    optimiser.step()
    after = net.state_dict()
    assert np.allclose(after["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5))
    assert all(np.array_equal(after[p.name], before[p.name]) for p in others["params"])


def test_clipping_scales_all_gradients_by_one_factor():
    params = parameters(np.float32)
    give_gradients(params, 0, skip=(2,))
    before = [p.grad for p in params]
    copies = [None if g is None else g.copy() for g in before]
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in before if g is not None))
    assert optim.clip_gradients(params, norm * 2) == pytest.approx(norm, rel=1e-6)
    assert all(p.grad is g for p, g in zip(params, before, strict=True))  # small enough: nothing changes
    assert optim.clip_gradients(iter(params), norm / 4) == pytest.approx(norm, rel=1e-6)
    for p, g, original in zip(params, before, copies, strict=True):
        if g is not None:
            assert np.array_equal(g, original)  # arrays that others may hold are left alone
            assert p.grad.dtype == np.float32 and np.allclose(p.grad, original / 4, rtol=1e-6)
    assert optim.clip_gradients(params, 1e9) == pytest.approx(norm / 4, rel=1e-6)


def test_clipping_does_not_overflow():
    p = Parameter(np.zeros(4, np.float32))
    p.grad = np.full(4, 3e30, np.float32)
    assert optim.clip_gradients([p], 1.0) == pytest.approx(6e30, rel=1e-6)
    assert np.allclose(p.grad, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_names_the_gradient_that_is_not_finite(bad):
    params = parameters()
    give_gradients(params, 0)
    params[2].grad[0, 0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"the gradient of parameter 2 \(p2, \(2, 1, 3, 3\)\) is not finite"):
        optim.clip_gradients(params, 1.0)
    for max_norm in (0, -1, math.nan):
        with pytest.raises(ValueError, match="max_norm: expected"):
            optim.clip_gradients(params, max_norm)


# ---- schedules


def test_constant_and_step_decay():
    assert [optim.constant(0.3)(k) for k in (0, 7)] == [0.3, 0.3]
    schedule = optim.step_decay(1.0, [3, 5], 0.1)
    assert [schedule(k) for k in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert optim.step_decay(0.5, [])(10) == 0.5


def test_cosine_rises_from_0_and_falls_to_0():
    schedule = optim.cosine(2.0, total_steps=14, warmup=4)
    assert [schedule(k) for k in range(5)] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert schedule(9) == pytest.approx(1.0) and schedule(14) == pytest.approx(0, abs=1e-15)
    assert schedule(1000) == schedule(14)
    assert optim.cosine(2.0, total_steps=10)(0) == 2.0
    values = [schedule(k) for k in range(4, 15)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("steps", "peak"), [(1, 0.2), (10, 0.2), (77, 1.0), (5850, 0.2)])
def test_one_cycle_is_that_of_the_comparison_with_pytorch(steps, peak):
    warm, schedule = 0.3 * steps if steps > 3 else 0, optim.one_cycle(peak, steps)  # a rise takes a step at least
    for k in range(steps):
        share = k / warm if k < warm else 0.5 * (1 + math.cos(math.pi * (k - warm) / (steps - warm)))
        assert schedule(k) == pytest.approx(peak * share, rel=1e-12)
    assert schedule(steps) == pytest.approx(0, abs=1e-15)
    assert optim.one_cycle(peak, steps, warmup=0)(0) == peak


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.constant(math.nan), r"lr: expected a number in \[0, inf\), got nan"),
        (lambda: optim.step_decay(0.1, [5, 3]), "milestones: expected increasing steps"),
        (lambda: optim.step_decay(0.1, [5], math.inf), r"gamma: expected a number in \[0, inf\), got inf"),
        (lambda: optim.cosine(-1, 10), r"lr: expected a number in \[0, inf\), got -1"),
        (lambda: optim.cosine(0.1, 10, 10), "expected 0 <= warmup < total_steps, got 10 and 10"),
        (lambda: optim.cosine(0.1, 0), "total_steps: expected an integer of at least 1, got 0"),
        (lambda: optim.one_cycle(math.inf, 10), r"max_lr: expected a number in \[0, inf\), got inf"),
        (lambda: optim.one_cycle(0.1, 0), "total_steps: expected an integer of at least 1, got 0"),
        (lambda: optim.one_cycle(0.1, 10, 1.0), r"warmup: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()
