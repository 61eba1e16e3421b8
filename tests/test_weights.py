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
from safetensors.numpy import save_file

import models
from minidl import nn, ops, weights
from minidl.io import safetensors_file
from tests.io.checkpoints.by_hand import name, tensor, text, zipped
from tests.io.checkpoints.make import FOLDER, small_net
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
    for n, a in given_arrays.items():
        assert arrays[n].dtype == a.dtype.newbyteorder("=") and arrays[n].shape == a.shape
        assert np.array_equal(arrays[n], a, equal_nan=a.dtype.kind == "f")


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


def entry(dtype, shape, size, begin=0):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}


def test_types_that_numpy_does_not_have_become_float32(tmp_path):
    """bfloat16 is the upper half of a float32; of a float of 8 bits, 0x38 is 1 as e4m3, 0.5 as e5m2."""
    entries = {"a": entry("BF16", [2], 4), "b": entry("F8_E4M3", [1, 2], 2, 4), "c": entry("F8_E5M2", [2], 2, 6)}
    (tmp_path / "w").write_bytes(header(entries, bytes.fromhex("803f 20c0 38ff 38fc")))
    arrays, _ = weights.load_arrays(tmp_path / "w")
    assert all(a.dtype == np.float32 and a.flags.writeable for a in arrays.values())
    assert arrays["a"].tolist() == [1, -2.5] and arrays["b"].shape == (1, 2) and arrays["b"][0, 0] == 1
    assert np.isnan(arrays["b"][0, 1]) and arrays["c"].tolist() == [0.5, -np.inf]


@pytest.mark.parametrize(
    ("dtype", "why"), [("F4", "which NumPy has not"), ("F6_E2M3", "which NumPy"), ("I128", "damaged or newer")]
)
def test_types_that_are_not_read_are_named(tmp_path, dtype, why):
    (tmp_path / "w").write_bytes(header({"a": entry("F32", [1], 4), "b.weight": entry(dtype, [4], 2, 4)}, bytes(6)))
    with pytest.raises(ValueError, match=f"w: 'b.weight': numbers of the type '{dtype}', {why}.*: convert it to F32"):
        weights.load_arrays(tmp_path / "w")


F32 = entry("F32", [1], 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header({"a": F32}, bytes(3)), "the header tells of 4 bytes of values, there are 3"),
        (header({"a": F32}, bytes(5)), "the header tells of 4 bytes of values, there are 5"),
        (header({"a": entry("F32", [1], 4, 4)}, bytes(8)), "'a' begins at byte 4 of the values, expected 0"),
        (header({"a": F32, "b": F32}, bytes(4)), "'b' begins at byte 0 of the values, expected 4"),
        (header({"a": entry("F32", [2], 4)}, bytes(4)), r"'a': 4 bytes, expected 8 for shape \(2,\)"),
        (header({"a": F32 | {"shape": [-1]}}, bytes(4)), r"'a': shape: expected whole numbers in \[0, 2\^48\)"),
        (header({"a": F32 | {"shape": [True]}}, bytes(4)), "'a': shape: expected whole numbers"),
        (header({"a": F32 | {"shape": [1.0]}}, bytes(4)), "'a': shape: expected whole numbers"),
        (header({"a": F32 | {"shape": [10**4000] * 60}}, bytes(4)), "'a': shape: expected whole numbers"),
        (header({"a": F32 | {"shape": [1] * 65}}, bytes(4)), "'a': shape: expected a list of at most 64 numbers"),
        (header({"a": F32 | {"shape": 1}}, bytes(4)), "'a': shape: expected a list"),
        (header({"a": F32 | {"data_offsets": [4, 0]}}, bytes(4)), "'a': data_offsets: expected a begin and an end"),
        (header({"a": F32 | {"data_offsets": [0]}}, bytes(4)), "'a': data_offsets: expected a begin and an end"),
        (header({"a": F32 | {"dtype": 32}}, bytes(4)), "'a': dtype: expected a string, got int"),
        (header({"a": {"dtype": "F32"}}), "'a': expected dtype, shape and data_offsets"),
        (header({"a": [1]}), "'a': expected an object, got list"),
        (header({"__metadata__": [1]}), "__metadata__: expected an object, got list"),
        (header({"__metadata__": {"step": 3}}), "__metadata__: 'step': expected a string, got int"),
        (header(b'{"a":1,"a":1}'), "a name stands twice in the header"),
        (header(b'{"a":' + b"[" * 100_000), "the header is nested without end"),
        (header(b'{"a":NaN}'), "'a': expected an object, got float"),
        (header(b'{"a":\xff}'), ".* can't decode byte"),
        (header(b"{} {}"), "Extra data"),
        (header(b'{"' + b"n" * 100_000 + b'":1}'), r"'n{70,80}\.\.\.: expected an object, got int"),
        ((1 << 63).to_bytes(8, "little") + b"{}", "cut short, a header of 9,223,372,036,854,775,808 bytes is announced"),
    ],
)
def test_every_check_of_a_safetensors_file(tmp_path, content, message):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(
        ValueError, match=f"w: expected a safetensors file, got [\\d,]+ bytes that are damaged: {message}"
    ) as error:
        weights.load_arrays(tmp_path / "w")
    assert len(str(error.value)) < len(str(tmp_path)) + 500


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_what_the_safetensors_package_reads_is_read_alike(at, new):
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    raw = save({"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.int8)}, {"by": "them"})
    raw = raw[: at % len(raw)] + new + raw[at % len(raw) + len(new) :]
    try:
        theirs = load(raw)
    except (SafetensorError, KeyError):
        return
    assert same(theirs, safetensors_file.read(raw)[0])


def test_the_number_of_the_format(tmp_path):
    path = tmp_path / "w"
    weights.save_arrays(path, {"a": np.ones(2)}, {"step": "3"})
    assert json.loads(path.read_bytes()[8:].partition(b" ")[0].partition(b"\0")[0])["__metadata__"]["minidl_format"] == "1"
    assert weights.load_arrays(path)[1] == {"step": "3"}
    weights.save(net(), path)
    assert b'"minidl_format":"1"' in path.read_bytes()


def test_files_without_a_number_are_read(tmp_path):
    """Ours from before there were numbers, with a digest over the rest, and those from elsewhere, with their own "format"."""
    old = {"a": np.arange(3, dtype=np.float32)}
    digest = weights._digest(old, {"model": "Net"})
    save_file(old, tmp_path / "old", {"model": "Net", "sha256": digest})
    assert weights.load_arrays(tmp_path / "old")[1] == {"model": "Net"}
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "old", {"model": "Net", "sha256": digest})
    with pytest.raises(ValueError, match="damaged, its values are not those"):
        weights.load_arrays(tmp_path / "old")
    save_file(old, tmp_path / "foreign", {"format": "pt"})
    assert weights.load_arrays(tmp_path / "foreign")[1] == {"format": "pt"}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("2", "written by a newer minidl: format 2, this one reads up to 1; install a newer one"),
        ("12345678901234567890", "written by a newer minidl: format 123456789"),
        ("0", "damaged, minidl_format: expected a whole number from 1 on, got '0'"),
        ("-1", "minidl_format: expected a whole number"),
        ("1.5", "minidl_format: expected a whole number"),
        ("", "minidl_format: expected a whole number"),
        ("\u0661", "minidl_format: expected a whole number"),
        ("x" * 10_000, r"minidl_format: expected a whole number from 1 on, got 'x{70,80}\.\.\."),
    ],
)
def test_formats_that_are_not_known(tmp_path, number, message):
    save_file({"0.weight": np.ones(2)}, tmp_path / "w", {"minidl_format": number})
    for read in (lambda: weights.load_arrays(tmp_path / "w"), lambda: weights.load(net(), tmp_path / "w")):
        with pytest.raises(ValueError, match=f"{tmp_path / 'w'}: .*{message}"):
            read()


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
    """The net of tests/io/checkpoints/small.pth and small.th"""

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


def test_a_prefix_is_advised_although_not_all_names_have_it(tmp_path):
    state, path = small_net(), tmp_path / "w"
    wrapped = {f"module.{n}": a for n, a in state.items()}
    weights.save_arrays(path, {"a.step": np.array(3)} | wrapped)
    advice = "8 of 9 names begin with 'module.': pass prefix='module.', and strict=False for the others)"
    assert advice in refusal(Small(), path) and advice in refusal(Small(), path, strict=False)
    assert weights.load(Small(), path, prefix="module.", strict=False) == ([], ["a.step"])
    assert "a.step: unexpected" in refusal(Small(), path, prefix="module.")
    bare = {n: a for n, a in wrapped.items() if "linear" not in n} | {n: a for n, a in state.items() if "linear" in n}
    weights.save_arrays(path, bare)  # a stray that fits as it is
    assert "6 of 8 names begin with 'module.': pass prefix='module.')" in refusal(Small(), path)
    assert weights.load(Small(), path, prefix="module.") == ([], [])
    weights.save_arrays(path, wrapped | {f"ema.{n}": a for n, a in state.items()})
    message = refusal(Small(), path)
    assert "8 of 16 names begin with 'ema.': pass prefix='ema.' or prefix='module.', and strict=False for" in message
    weights.save_arrays(path, state | {"module.conv1.weight": state["conv1.weight"]})
    assert "pass prefix" not in refusal(Small(), path)
    weights.save_arrays(path, {f"{'a.' * 50_000}conv1.weight": state["conv1.weight"]})
    message = refusal(Small(), path)
    assert "pass prefix" not in message and len(message) < 4000


def test_nothing_at_all_is_no_success(tmp_path):
    path = tmp_path / "w"
    weights.save_arrays(path, {f"module.{n}": a for n, a in small_net().items()})
    message = refusal(Small(), path, strict=False)
    assert "holds no entry of this model (every name begins with 'module.': pass prefix='module.'): it holds" in message
    assert "it holds 'module." in message and "and 5 more, the model 'conv1.weight', " in message
    weights.save_arrays(path, {"x": np.ones(2)})
    assert "holds no entry of this model: it holds 'x', the model 'conv1.weight', " in refusal(Small(), path, strict=False)
    assert "it holds 'x', the model" in refusal(Small(), path, strict=False, skip="linear")
    weights.save_arrays(path, {"linear.bias": np.ones(5)})
    assert "it holds 'linear.bias', the model 'conv1.weight'" in refusal(Small(), path, strict=False, skip="linear")
    weights.save_arrays(path, {})
    assert "holds no entry of this model: it holds nothing, the model" in refusal(Small(), path, strict=False)
    old = {n: a for n, a in small_net().items() if "running_mean" in n}
    weights.save_arrays(path, old)
    missing, _ = weights.load(Small(), path, strict=False)  # something
    assert "bn1.running_mean" not in missing
    everything = ["conv1", "bn1", "linear"]
    assert weights.load(Small(), path, strict=False, skip=everything) == ([*Small().state_dict()], [])
    weights.save_arrays(path, {})
    assert weights.load(nn.ReLU(), path) == ([], [])
    with pytest.raises(ValueError, match="skip='fc': the model has no layer of that name; its last is None"):
        weights.load(nn.ReLU(), path, skip="fc")


@PTH
def test_nothing_of_a_checkpoint_is_no_success(path):
    message = refusal(Small(), path, key="state_dict", strict=False)
    assert "holds no entry of this model (every name begins with 'module.': pass prefix='module.')" in message
    assert "pass key='state_dict' (8 tensors)" in refusal(Small(), path, strict=False)


def test_messages_are_shorter_than_files(tmp_path):
    path = tmp_path / "w"
    weights.save_arrays(path, {f"{n:04}" + "x" * 1000: np.ones(1) for n in range(1000)})
    assert len(refusal(Small(), path)) < 1000 and "and 997 more, the model" in refusal(Small(), path)
    assert len(refusal(Small(), path, strict=False)) < 1000
    with pytest.raises(ValueError, match=r"(?s)1008 of the entries do not fit.*\n  and 908 more$") as error:
        Small().load_state_dict(weights.load_arrays(path)[0])
    assert len(str(error.value)) < 20_000
    assert len(refusal(Small(), path, prefix="y")) < 1000


def test_complex_weights_are_not_cut_to_their_real_part(tmp_path):
    w = np.ones((4, 5, 3, 3), np.complex64) * (1 + 2j)
    (tmp_path / "w").write_bytes(header({"conv1.weight": entry("C64", w.shape, w.nbytes)}, w.tobytes()))
    message = refusal(Small(), tmp_path / "w", adapt_input=True, strict=False)
    assert "conv1.weight: (4, 5, 3, 3) complex64, expected (4, 3, 3, 3) float32" in message


def test_notes_in_the_place_of_weights(tmp_path):
    namespace = name("argparse.Namespace") + b")\x81}b"
    (tmp_path / "w").write_bytes(zipped(b"}(" + text("conv1.weight") + namespace + text("linear.bias") + tensor() + b"u"))
    message = refusal(Small(), tmp_path / "w")
    assert "conv1.weight: <argparse.Namespace, not read>, expected (4, 3, 3, 3) float32" in message


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
        ({}, {"sha256": "x"}, "metadata: expected strings under names other than 'sha256' and 'minidl_format', got 'sha256'"),
        ({}, {"minidl_format": "1"}, "names other than 'sha256' and 'minidl_format', got 'minidl_format': '1'"),
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
