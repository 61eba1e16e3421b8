import errno
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import models
from minidl import nn, ops, weights
from tests.checkpoints.make import FOLDER, small_net
from tests.models.test_resnet import torch_resnet


def net(width=4, seed=0):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, rng=rng), nn.BatchNorm2d(width), nn.GlobalAvgPool2d(), nn.Linear(width, 2, rng=rng)
    )


def same(a, b):
    return a.keys() == b.keys() and all(x.dtype == b[n].dtype and np.array_equal(x, b[n]) for n, x in a.items())


# ---- there and back


def test_a_model_comes_back_bit_for_bit(tmp_path):
    source, target, path = net(seed=1), net(seed=2), tmp_path / "net.safetensors"
    source(np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32))  # moves the running statistics
    weights.save(source, path)
    assert weights.load(target, path) == ([], [])
    assert same(source.state_dict(), target.state_dict())
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_weights_are_cast_to_the_type_of_the_model(tmp_path):
    weights.save(net(seed=1).to(dtype=np.float64), tmp_path / "w")
    target = net(seed=2)
    weights.load(target, str(tmp_path / "w"))
    assert all(p.dtype == np.float32 for p in target.parameters())
    assert np.array_equal(target[0].weight.data, net(seed=1)[0].weight.data)


numbers = arrays_of.arrays(
    st.sampled_from("bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 >f4".split()),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
words = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=8).filter(lambda n: n != "__metadata__"), numbers, max_size=4), words)
def test_any_arrays_and_words_come_back(tmp_path_factory, given_arrays, metadata):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    weights.save_arrays(path, given_arrays, metadata)
    arrays, words = weights.load_arrays(path)
    assert words == metadata and arrays.keys() == given_arrays.keys()
    for name, a in given_arrays.items():
        assert arrays[name].dtype == a.dtype.newbyteorder("=") and arrays[name].shape == a.shape
        assert np.array_equal(arrays[name], a, equal_nan=a.dtype.kind == "f")


def test_transposed_and_strided_arrays(tmp_path):
    a = np.arange(24.0).reshape(4, 6)
    weights.save_arrays(tmp_path / "w", {"t": a.T, "s": a[::2, 1::2], "scalar": np.float32(3)})
    arrays, _ = weights.load_arrays(tmp_path / "w")
    assert np.array_equal(arrays["t"], a.T) and np.array_equal(arrays["s"], a[::2, 1::2]) and arrays["scalar"] == 3


def test_files_are_exchanged_with_the_safetensors_package(tmp_path):
    from safetensors.numpy import load_file, save_file

    weights.save(net(), tmp_path / "ours")
    assert same(load_file(tmp_path / "ours"), net().state_dict())
    save_file({"a": np.arange(3.0)}, tmp_path / "theirs", {"by": "them"})
    arrays, metadata = weights.load_arrays(tmp_path / "theirs")
    assert arrays["a"].tolist() == [0, 1, 2] and metadata == {"by": "them"}
    save_file({"a": np.arange(3.0)}, tmp_path / "plain")
    assert weights.load_arrays(tmp_path / "plain")[1] == {}


def test_who_reads_during_a_save_reads_the_old_file_to_its_end(tmp_path):
    weights.save_arrays(tmp_path / "w", {"a": np.arange(9)})
    old = (tmp_path / "w").read_bytes()
    with open(tmp_path / "w", "rb") as reader:
        start = reader.read(20)
        weights.save_arrays(tmp_path / "w", {"a": np.zeros(5)})
        assert start + reader.read() == old
    assert weights.load_arrays(tmp_path / "w")[0]["a"].tolist() == [0] * 5


# ---- damage


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path):
    path, given_arrays = tmp_path / "w.safetensors", {"a": np.arange(6, dtype=np.float32), "b": np.array(3)}
    weights.save_arrays(path, given_arrays, {"step": "7"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"w.safetensors: expected a safetensors file, got ({size} bytes|an empty file)"):
            weights.load_arrays(path)
    harmless = 0
    for at in range(len(whole)):
        for bit in (0, 5):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                arrays, metadata = weights.load_arrays(path)
            except ValueError as error:
                assert "w.safetensors" in str(error) and "damaged" in str(error)
            else:  # another spelling of the same JSON, or of the name "sha256", for which there is nothing to check then
                assert same(arrays, given_arrays) and metadata["step"] == "7"
                harmless += 1
    assert harmless < 30


@pytest.mark.parametrize(
    "content",
    [b"\0" * 8, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x04\0\0\0\0\0\0\0null"],
    ids=repr,
)
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ValueError, match=f"expected a safetensors file, got {len(content)} bytes that begin with"):
        weights.load_arrays(tmp_path / "w")


def header(entries, values=b""):
    """A safetensors file with this header"""
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw + values


def test_a_damaged_file_leaves_the_model_as_it_was(tmp_path):
    weights.save(net(seed=1), tmp_path / "w")
    whole = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(whole[:-5] + b"\x01" + whole[-4:])
    model = net(seed=2)
    with pytest.raises(ValueError, match="damaged, its values are not those that were written"):
        weights.load(model, tmp_path / "w")
    assert same(model.state_dict(), net(seed=2).state_dict())


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.safetensors"):
        weights.load(net(), tmp_path / "nowhere.safetensors")
    with pytest.raises(OSError, match=r"could not write [\d,]+ bytes to .*nowhere.*w: No such file"):
        weights.save(net(), tmp_path / "nowhere" / "w")
    with pytest.raises(IsADirectoryError):
        weights.load(net(), tmp_path)


def test_weights_of_another_model(tmp_path):
    weights.save(net(width=5), tmp_path / "w")
    model = net(width=4)
    with pytest.raises(ValueError) as caught:
        weights.load(model, tmp_path / "w")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'w'}: holds the weights of another model than this one")
    assert "0.weight: (5, 3, 3, 3) float32, expected (4, 3, 3, 3) float32" in message
    assert same(model.state_dict(), net(width=4).state_dict())


def test_not_strict(tmp_path):
    weights.save(nn.Sequential(nn.Conv2d(3, 4, 3, rng=np.random.default_rng(5))), tmp_path / "w")
    model = net()
    missing, unexpected = weights.load(model, tmp_path / "w", strict=False)
    assert "3.weight" in missing and "0.weight" not in missing and unexpected == []
    assert np.array_equal(model[0].weight.data, nn.Conv2d(3, 4, 3, rng=np.random.default_rng(5)).weight.data)


# ---- PyTorch's checkpoints, and weights that almost fit


class Small(nn.Module):
    """The net of tests/checkpoints/small.pth and small.th"""

    def __init__(self, num_classes=5, in_channels=3):
        rng = np.random.default_rng(9)
        self.conv1 = nn.Conv2d(in_channels, 4, 3, padding=1, bias=False, rng=rng)
        self.bn1 = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, num_classes, rng=rng)

    def forward(self, x):
        return self.linear(ops.global_avg_pool2d(self.bn1.relu(self.conv1(x))))


PTH = pytest.mark.parametrize("path", [FOLDER / "small.pth", FOLDER / "small.th"], ids=["zip", "legacy"])


@PTH
def test_a_checkpoint_of_pytorch(path):
    model = Small()
    assert weights.load(model, path, key="state_dict", prefix="module.") == ([], [])
    assert same(model.state_dict(), small_net() | {"bn1.num_batches_tracked": np.array(7)})


def refusal(model, path, **options):
    """The message of an error that leaves the model as it was"""
    before = model.state_dict()
    with pytest.raises(ValueError) as caught:
        weights.load(model, path, **options)
    assert same(model.state_dict(), before) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@PTH
def test_errors_name_the_option_that_helps(path):
    model = Small(num_classes=2, in_channels=1)
    assert "the weights lie in an entry of their own: pass key='state_dict' (8 tensors)" in refusal(model, path)
    message = refusal(model, path, key="state_dict")
    assert "(every name begins with 'module.': pass prefix='module.'; conv1.weight is for 3 input channels, " in message
    options = {"key": "state_dict", "prefix": "module."}
    message = refusal(model, path, **options)
    assert "(conv1.weight is for 3 input channels, the model's for 1: pass adapt_input=True; linear: 5 outputs, " in message
    assert "pass prefix" not in message
    options["adapt_input"] = True
    message = refusal(model, path, **options)
    assert "(linear: 5 outputs, 2 in the model: pass skip='linear' to leave it as it is): state of Small: 2 of" in message
    options["skip"] = "linear"
    assert weights.load(model, path, **options) == (["linear.weight", "linear.bias"], [])
    message = refusal(model, path, **options | {"skip": "fc"})
    assert "skip='fc': the model has no layer of that name; its last is 'linear'" in message
    message = refusal(model, path, **options | {"prefix": "net."})
    assert "prefix='net.': no name begins with it; the first is 'module.conv1.weight'" in message


def test_a_head_is_left_as_it_is(tmp_path):
    weights.save(Small(num_classes=7), tmp_path / "w")
    head = Small().linear.weight.data.copy()
    for skip in ("linear", ["linear"], ["linear.weight", "linear.bias"]):
        model = Small()
        for p in model.parameters():
            p.data += 1
        assert weights.load(model, tmp_path / "w", skip=skip) == (["linear.weight", "linear.bias"], [])
        assert np.array_equal(model.linear.weight.data, head + 1) and model.linear.weight.shape == (5, 4)
        assert np.array_equal(model.conv1.weight.data, Small().conv1.weight.data)
    weights.save_arrays(tmp_path / "w", {n: a for n, a in Small().state_dict().items() if "linear" not in n})
    assert weights.load(model, tmp_path / "w", skip="linear") == (["linear.weight", "linear.bias"], [])
    assert "skip='lin': the model has no layer of that name" in refusal(model, tmp_path / "w", skip="lin")


@pytest.mark.parametrize("C", [1, 3, 5])
@pytest.mark.parametrize("N", [1, 2, 3, 4])
def test_other_input_channels_answer_to_grey_as_before(tmp_path, C, N):
    source, target = Small(in_channels=C).to(dtype=np.float64), Small(in_channels=N).to(dtype=np.float64)
    weights.save(source, tmp_path / "w")
    assert weights.load(target, tmp_path / "w", adapt_input=True) == ([], [])
    grey = np.random.default_rng(0).normal(size=(2, 1, 6, 5))
    before, after = (m.conv1(np.repeat(grey, n, axis=1)).data for m, n in ((source, C), (target, N)))
    assert np.allclose(before, after, rtol=1e-12, atol=1e-12)
    w, adapted = source.conv1.weight.data, target.conv1.weight.data
    if N == 1:
        assert np.allclose(adapted, w.sum(1, keepdims=True))
    elif C != N:
        assert np.allclose(adapted, C / N * w.mean(1, keepdims=True))
    else:
        assert np.array_equal(adapted, w)
    if C != N:
        assert f"is for {C} input channels, the model's for {N}: pass adapt_input=True" in refusal(target, tmp_path / "w")


def test_only_the_channels_of_the_first_convolution_are_adapted(tmp_path):
    def two(c_in, between, kernel=3):
        return nn.Sequential(nn.Conv2d(c_in, between, kernel), nn.Conv2d(between, 2, 1))

    weights.save(two(3, 4), tmp_path / "w")
    assert "1.weight: (2, 4, 1, 1) float32, expected (2, 5, 1, 1)" in refusal(two(1, 5), tmp_path / "w", adapt_input=True)
    assert "0.weight: (4, 3, 3, 3) float32, expected (4, 1, 5, 5)" in refusal(two(1, 4, 5), tmp_path / "w", adapt_input=True)
    weights.save(nn.Linear(2, 3), tmp_path / "w")
    assert weights.load(nn.Linear(2, 3), tmp_path / "w", adapt_input=True) == ([], [])


def test_prefixes(tmp_path):
    state = small_net()
    weights.save_arrays(tmp_path / "w", {f"module.net.{n}": a for n, a in state.items()})
    assert "every name begins with 'module.net.': pass prefix='module.net.'" in refusal(Small(), tmp_path / "w")
    assert weights.load(Small(), tmp_path / "w", prefix="module.net.") == ([], [])
    weights.save_arrays(tmp_path / "w", {f"net.{n}": a for n, a in state.items()} | {"step": np.array(3)})
    assert weights.load(Small(), tmp_path / "w", prefix="net.", strict=False) == ([], ["step"])
    assert "step: unexpected" in refusal(Small(), tmp_path / "w", prefix="net.")
    weights.save_arrays(tmp_path / "w", state | {"net.linear.bias": state["linear.bias"]})
    message = refusal(Small(), tmp_path / "w", prefix="net.")
    assert "prefix='net.': there are entries of the same name with and without it" in message
    assert "key='x': a safetensors file holds the weights and no other entries" in refusal(Small(), tmp_path / "w", key="x")


def test_batches_that_were_not_counted_are_none(tmp_path):
    """PyTorch has counted the batches of batch norm since 0.4.1; older weights have no entry for it."""
    state = {n: a for n, a in small_net().items() if "num_batches" not in n}
    weights.save_arrays(tmp_path / "w", state)
    model = Small()
    model.bn1.num_batches_tracked += 5
    assert weights.load(model, tmp_path / "w") == ([], []) and model.bn1.num_batches_tracked == 0
    weights.save_arrays(tmp_path / "w", {n: a for n, a in state.items() if "running" not in n})
    assert "bn1.num_batches_tracked: missing" in refusal(model, tmp_path / "w")


def test_a_checkpoint_that_is_damaged_leaves_the_model_as_it_was(tmp_path):
    raw = (FOLDER / "small.pth").read_bytes()
    (tmp_path / "w").write_bytes(raw[:-100])
    options = {"key": "state_dict", "prefix": "module."}
    assert f"{tmp_path / 'w'}: a zip archive that is damaged or cut short" in refusal(Small(), tmp_path / "w", **options)
    entry = raw.index(b"module.linear.bias")
    (tmp_path / "w").write_bytes(raw[:entry] + b"m\xff" + raw[entry + 2 :])
    assert f"{tmp_path / 'w'}: 'small/data.pkl': damaged, its checksum differs" in refusal(Small(), tmp_path / "w", **options)


@pytest.mark.oracle
def test_pytorch_reads_what_is_written_here(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is to read the file")
    from safetensors.torch import load_file

    model = models.resnet20(seed=3)
    model(np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    weights.save(model, tmp_path / "w")
    theirs = torch_resnet(torch, 3, 10, 3, True)
    theirs.load_state_dict(load_file(tmp_path / "w"))
    assert same({n: x.numpy() for n, x in theirs.state_dict().items()}, model.state_dict())


@pytest.mark.oracle
@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_the_published_layout_of_the_cifar_resnets(tmp_path, zip_format):
    """{"state_dict": {"module.conv1.weight": ...}, "best_prec1": ...}, saved behind DataParallel"""
    torch = pytest.importorskip("torch", reason="torch writes the file")
    torch.manual_seed(0)
    theirs = torch_resnet(torch, 3, 10, 3, True)
    x = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    theirs(torch.from_numpy(x))
    content = {"state_dict": torch.nn.DataParallel(theirs).state_dict(), "best_prec1": 91.73}
    torch.save(content, tmp_path / "resnet20.th", _use_new_zipfile_serialization=zip_format)
    model = models.resnet20()
    assert weights.load(model, tmp_path / "resnet20.th", key="state_dict", prefix="module.") == ([], [])
    assert same(model.state_dict(), {n: a.numpy() for n, a in theirs.state_dict().items()})
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    assert np.allclose(model.eval()(x).data, expected, rtol=0, atol=1e-4)
    torch.save(theirs.state_dict(), tmp_path / "plain.pth", _use_new_zipfile_serialization=zip_format)
    assert weights.load(models.resnet20(seed=1), tmp_path / "plain.pth") == ([], [])


# ---- bad input


@pytest.mark.parametrize(
    ("given_arrays", "metadata", "message"),
    [
        ({"a": [1, 2]}, None, "a: expected an array of numbers, got list"),
        ({"a": np.zeros(2, complex)}, None, "a: expected an array of numbers, got complex128"),
        ({"a": np.array(["x"])}, None, "a: expected an array of numbers, got <U1"),
        ({}, {"step": 3}, "metadata: expected strings .* got 'step': 3"),
        ({}, {3: "step"}, "metadata: expected strings .* got 3: 'step'"),
        ({}, {"sha256": "x"}, "metadata: expected strings under names other than 'sha256'"),
    ],
)
def test_what_cannot_be_written_leaves_the_file_that_is_there(tmp_path, given_arrays, metadata, message):
    (tmp_path / "w").write_bytes(b"before")
    with pytest.raises(TypeError, match=message):
        weights.save_arrays(tmp_path / "w", given_arrays, metadata)
    assert (tmp_path / "w").read_bytes() == b"before" and os.listdir(tmp_path) == ["w"]


# ---- a disk that is full: in a process of its own, once by a limit on the size of files, once for real

SAVE_TWICE = """
    import os, sys, numpy as np
    from minidl import weights

    folder = sys.argv[1]
    path = os.path.join(folder, "w.safetensors")
    weights.save_arrays(path, {"a": np.arange(1000)}, {"which": "first"})
    LIMIT
    try:
        weights.save_arrays(path, {"a": np.zeros(100_000)}, {"which": "second"})
    except OSError as error:
        arrays, metadata = weights.load_arrays(path)
        assert metadata == {"which": "first"} and (arrays["a"] == np.arange(1000)).all()
        assert os.listdir(folder) == ["w.safetensors"]
        print(error.errno, error)
"""


def save_twice(folder, limit="", before=()):
    script = textwrap.dedent(SAVE_TWICE).replace("LIMIT", limit)
    return subprocess.run([*before, sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60)


def test_a_limit_on_the_size_of_files(tmp_path):
    pytest.importorskip("resource")
    done = save_twice(tmp_path, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{errno.EFBIG} ") and "could not write 800," in done.stdout
    assert "what was there before is unchanged" in done.stdout


def test_a_full_disk(tmp_path):
    small_disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=256k none '{tmp_path}'"
    try:
        possible = subprocess.run([*small_disk, mount], capture_output=True, timeout=60).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("no small disk can be mounted here")
    done = save_twice(tmp_path, before=[*small_disk, f'{mount} && exec "$@"', "sh"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{errno.ENOSPC} ") and "No space left on device" in done.stdout
    assert str(tmp_path / "w.safetensors") in done.stdout
