"""Checkpoints of all kinds, in both formats: what torch.load(weights_only=True) reads is read here, the tensors bit for bit."""

import collections
import io
import math
import zipfile

import numpy as np
import pytest

from minidl.io.notes import Note
from minidl.io.torch_checkpoint import Checkpoint, state_dict
from minidl.io.torch_pickle import Global, Storage, StoredTensor

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # what PyTorch says of old and new kinds of tensors

READ = "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool complex64 complex128".split()
NO_STORAGE = "uint16 uint32 uint64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu complex32".split()
FORMATS = pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch writes and reads the files")


def of_type(torch, name, n=24):
    """Numbers of the type with drawn bits, NaN and infinity among them"""
    dtype = getattr(torch, name)
    raw = np.random.default_rng(len(name)).integers(0, 256, n * dtype.itemsize, np.uint8)
    return torch.from_numpy(raw & 1 if name == "bool" else raw).view(dtype)


def trained(torch, optimizer, **options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(36, 2))
    optimizer = getattr(torch.optim, optimizer)(net.parameters(), lr=0.01, **options)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    for _ in range(3):
        net(torch.rand(4, 3, 5, 5)).sum().backward()
        optimizer.step()
        schedule.step()
    return net, optimizer, schedule


def kinds(torch, zip_format):
    """Everything that is saved, by name"""
    x = torch.arange(24.0).reshape(2, 3, 4)
    net, adam, schedule = trained(torch, "Adam")
    _, sgd, cosine = trained(torch, "SGD", momentum=0.9)
    parameter = torch.nn.Parameter(x.clone())
    parameter.tag = "kept"
    attributed = torch.ones(3)
    attributed.note = [1, 2]
    shared = torch.arange(10)
    hooked = torch.nn.Linear(2, 2)
    ema = torch.optim.swa_utils.AveragedModel(net)
    inner = {"epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.4.0", "callbacks": {"best": {"score": x.sum()}}}
    found = {name: {"a": of_type(torch, name)} for name in READ + (NO_STORAGE if zip_format else [])}
    found |= {
        "a tensor alone": x,
        "no axes": {"a": torch.tensor(3.5), "b": torch.tensor(7), "c": torch.tensor(True)},
        "empty": {"a": torch.empty(0), "b": torch.empty(2, 0, 3), "c": torch.empty(0, dtype=torch.int64)},
        "transposed": {"a": x.transpose(0, 2), "b": x.mT, "c": x.permute(1, 2, 0)},
        "strided": {"a": x[:, ::2, 1::2], "b": x[1], "c": x[..., -1], "d": x[:, 1]},
        "views of views": {"a": x[1][1:][:, 2:].t(), "b": x.view(6, 4)[2:5].reshape(-1)[3:9].view(2, 3)},
        "channels last": {"a": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)},
        "overlapping": {"a": torch.arange(6.0).as_strided((4, 3), (1, 1))},
        "expanded": {"a": torch.tensor([1.0, 2.0]).expand(3, 2), "b": torch.tensor(5).expand(4, 4)},
        "one storage": {"whole": shared, "part": shared[2:5], "even": shared[::2], "again": shared},
        "tied parameters": (lambda w: {"encoder.weight": w, "decoder.weight": w})(torch.nn.Parameter(torch.rand(3, 2))),
        "needs a gradient": {"a": torch.ones(2, requires_grad=True), "b": torch.nn.Parameter(x)},
        "frozen parameter": {"a": torch.nn.Parameter(x, requires_grad=False)},
        "parameter with a state": {"a": parameter},
        "tensor with attributes": {"a": attributed},
        "buffer": {"a": torch.nn.Buffer(torch.arange(4)), "b": torch.nn.Buffer(torch.ones(1), persistent=False)},
        "parameters of a list": torch.nn.ParameterList([torch.rand(2), torch.rand(3)]).state_dict(),
        "state_dict": net.state_dict(),
        "state_dict of a module in half": torch.nn.Linear(3, 2).half().state_dict(),
        "state_dict in bfloat16": torch.nn.Linear(3, 2).bfloat16().state_dict(),
        "weight norm": torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 3)).state_dict(),
        "recurrent": torch.nn.LSTM(3, 4, num_layers=2).state_dict(),
        "attention": torch.nn.TransformerEncoderLayer(8, 2, 16).state_dict(),
        "embedding": torch.nn.Embedding(5, 3, padding_idx=0).state_dict(),
        "DataParallel": torch.nn.DataParallel(net).state_dict(),
        "DataParallel, nested": {"state_dict": torch.nn.DataParallel(net).state_dict(), "best_prec1": 91.25, "epoch": 3},
        "EMA": {"ema": ema.state_dict(), "n": ema.n_averaged},
        "Adam": adam.state_dict(),
        "AdamW, amsgrad": trained(torch, "AdamW", amsgrad=True)[1].state_dict(),
        "SGD": sgd.state_dict(),
        "RMSprop": trained(torch, "RMSprop", momentum=0.9)[1].state_dict(),
        "Adagrad": trained(torch, "Adagrad")[1].state_dict(),
        "schedules": {"steps": schedule.state_dict(), "cosine": cosine.state_dict()},
        "plateau": torch.optim.lr_scheduler.StepLR(sgd, 2).state_dict(),
        "GradScaler": torch.amp.GradScaler("cpu").state_dict(),
        "training": {"model": net.state_dict(), "optimizer": adam.state_dict(), "schedule": schedule.state_dict(), "epoch": 7},
        "lightning": inner | {"state_dict": net.state_dict(), "optimizer_states": [adam.state_dict()], "lr_schedulers": []},
        "deeply nested": {"a": {"b": {"c": [{"d": (x, [x[0], {"e": x[1]}])}]}}},
        "OrderedDict": collections.OrderedDict([("b", x), ("a", x[0])]),
        "Counter": {"counts": collections.Counter("abracadabra"), "a": x},
        "sets": {"s": {1, 2, 3}, "of strings": {"a", "b"}, "none": set(), "a": x},
        "lists and tuples": [x, (x[0], x[1]), [], (), [[x]], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "sizes": {"size": x.shape, "scalar": torch.Size([]), "a": x},
        "devices": [torch.device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:3", "mps", "meta")],
        "dtypes": {"dtypes": [getattr(torch, name) for name in READ + NO_STORAGE], torch.float32: "as a name"},
        "numbers": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, -(2**63), 2**200, -(2**200), True, False, None],
        "floats": [0.0, -0.0, 1.5, math.inf, -math.inf, 1e-310, 1e308],
        "complex": [1 + 2j, complex(0, -1)],
        "strings": ["", "a", "Gewicht ü", "重み", "\U0001f600", "x" * 300, "\udcff", "two\nlines"],
        "bytes": {"c": b"abc", "d": bytes(range(256)), "e": bytearray(b"xyz"), "a": x},
        "names": {1: x, -5: x, 2**60: 1, 1.5: 2, None: 3, False: 4, "a": 5, (1, "b"): 6, b"bytes": 7},
        "many numbers as names": {"by": {n * 7919: n for n in range(900)}, "ids": {n: str(n) for n in range(5000)}, "a": x},
        "generators": {"rng": torch.get_rng_state(), "cuda": [torch.get_rng_state()]},
        "storages": [x.untyped_storage(), shared.untyped_storage()] if zip_format else [x.storage(), shared.storage()],
        "hooks": {"a": hooked.weight, "b": hooked.state_dict(keep_vars=True)},
        "many": {f"layer{n}.weight": torch.full((2,), float(n)) for n in range(300)},
        "twice the same list": (lambda both: {"a": both, "b": both})([x, 1]),
        "extra state": {"a": x, "bn._extra_state": {"amax": [1.0, 2.0]}},
    }
    return found


def refused(torch):
    """What is saved, and what the refusal says"""
    x = torch.eye(3)
    z, eight = torch.tensor([1 + 2j]), torch.zeros(2, dtype=torch.uint8)
    return {
        "quantised": (torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "a quantised tensor, .* save x.dequantize"),
        "by channel": (torch.quantize_per_channel(x, torch.ones(3), torch.zeros(3), 0, torch.quint8), "a quantised tensor"),
        "sparse": (x.to_sparse(), "a sparse tensor, which is not read: save x.to_dense"),
        "sparse rows": (x.to_sparse_csr(), "a sparse tensor"),
        "sparse parameter": (torch.nn.Parameter(x.to_sparse()), "a sparse tensor"),
        "meta": (torch.empty(2, device="meta"), "a tensor on the device meta"),
        "nested": (torch.nested.nested_tensor([torch.ones(2)]), "a nested tensor"),
        "conjugated": (z.conj(), "a tensor stored negated or conjugated, .* save x.resolve_conj"),
        "negated": (z.conj().imag, "a tensor stored negated or conjugated"),
        "float4": (eight.view(torch.float4_e2m1fn_x2), "numbers of the type torch.float4_e2m1fn_x2"),
        "bits": (eight.view(torch.bits8), "numbers of the type torch.bits8"),
    }


def saved(torch, content, zip_format=True, protocol=2):
    torch.save(content, file := io.BytesIO(), pickle_protocol=protocol, _use_new_zipfile_serialization=zip_format)
    return file.getvalue()


def loaded(torch, raw, weights_only=True):
    return torch.load(io.BytesIO(raw), weights_only=weights_only)


def bits(torch, x):
    x = x.detach()
    if x.dtype == torch.complex32:
        return x.to(torch.complex64).numpy()
    widened = x.dtype == torch.bfloat16 or "float8" in str(x.dtype)
    return (x.float() if widened else x).numpy()


def alike(torch, checkpoint, ours, theirs):
    """Whether what was read here is what PyTorch read; counts the tensors."""
    if isinstance(theirs, torch.Tensor):
        came, expected = checkpoint.array(ours), bits(torch, theirs)
        assert came.dtype == expected.dtype and came.shape == expected.shape
        assert same_numbers(came, expected, str(theirs.dtype))
        return 1
    if isinstance(theirs, torch.UntypedStorage | torch.TypedStorage):
        assert isinstance(ours, Storage) and ours.count == len(theirs)
        whole = checkpoint.array(StoredTensor(ours, ours.dtype, 0, (ours.count,), (1,)))
        assert whole.tolist() == theirs.tolist()
        return 1
    if isinstance(theirs, dict):
        assert isinstance(ours, dict) and len(ours) == len(theirs)
        assert [k.what if isinstance(k, Global) else k for k in ours] == [str(k) if is_dtype(torch, k) else k for k in theirs]
        return sum(alike(torch, checkpoint, a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
    if isinstance(theirs, set):
        assert set(ours) == theirs and len(ours) == len(theirs)
        return 0
    if isinstance(theirs, list | tuple):
        assert isinstance(ours, tuple if isinstance(theirs, tuple) else list) and len(ours) == len(theirs)
        return sum(alike(torch, checkpoint, a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, torch.device):
        assert ours == str(theirs)
    elif is_dtype(torch, theirs):
        assert ours.what == str(theirs)
    elif isinstance(theirs, bytearray):
        assert ours == bytes(theirs)
    else:
        assert type(ours) is type(theirs) and (ours == theirs and repr(ours) == repr(theirs))
    return 0


def same_numbers(a, b, dtype):
    """Bit for bit; but a NaN that has been widened is one, whichever."""
    widened = "float8" in dtype or "complex32" in dtype
    return a.tobytes() == b.tobytes() or (widened and np.array_equal(a, b, equal_nan=True))


def is_dtype(torch, value):
    return isinstance(value, torch.dtype)


@FORMATS
def test_all_that_pytorch_reads(torch, zip_format, tell):
    kinds_read = tensors = 0
    for name, content in kinds(torch, zip_format).items():
        raw = saved(torch, content, zip_format)
        theirs = loaded(torch, raw)
        checkpoint = Checkpoint(raw)
        try:
            tensors += alike(torch, checkpoint, checkpoint.content, theirs)
        except AssertionError as error:
            raise AssertionError(f"{name}: {checkpoint.content!r:.500} is not {theirs!r:.500}") from error
        kinds_read += 1
    assert kinds_read >= 65 and tensors > 500
    tell(f"{'zip' if zip_format else 'legacy'}: {kinds_read} kinds of checkpoints, {tensors} tensors as PyTorch reads them")


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_protocols(torch, zip_format, protocol):
    """Its reader that runs nothing knows protocol 2, so that the other one is the oracle."""
    for content in kinds(torch, zip_format).values():
        raw = saved(torch, content, zip_format, protocol)
        checkpoint = Checkpoint(raw)
        alike(torch, checkpoint, checkpoint.content, loaded(torch, raw, weights_only=False))


@FORMATS
def test_what_is_refused_says_why(torch, zip_format):
    x = torch.arange(3.0)
    for name, (content, message) in refused(torch).items():
        try:
            raw = saved(torch, {"layer.weight": content, "other": x}, zip_format)
        except NotImplementedError:  # torch cannot write it so
            assert not zip_format and name in ("meta", "nested")
            continue
        with pytest.raises(ValueError, match=f"'layer.weight': {message}") as caught:
            state_dict(raw)
        assert "damaged" not in str(caught.value)
        beside = saved(torch, {"side": [content], "w": x}, zip_format)
        assert state_dict(beside)["w"].tolist() == [0, 1, 2]
        side = state_dict(beside)["side"][0]
        assert isinstance(side, Note | StoredTensor)


@FORMATS
def test_views_share_their_storage(torch, zip_format):
    x = torch.arange(10)
    state = state_dict(saved(torch, {"whole": x, "part": x[2:5], "apart": x.clone()}, zip_format))
    assert np.shares_memory(state["whole"], state["part"]) and not np.shares_memory(state["whole"], state["apart"])


@pytest.mark.parametrize("name", [*READ, *NO_STORAGE])
def test_the_other_byte_order(torch, name):
    raw = saved(torch, {"a": of_type(torch, name), "b": of_type(torch, name)[1:7].reshape(2, 3)})
    dtype = getattr(torch, name)
    size = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(big := io.BytesIO(), "w") as other:
        for record in archive.namelist():
            content = archive.read(record)
            if "/data/" in record:
                content = np.frombuffer(content, f"V{size}").view(np.uint8).reshape(-1, size)[:, ::-1].tobytes()
            other.writestr(record, b"big" if record.endswith("byteorder") else content)
    here, theirs = state_dict(big.getvalue()), loaded(torch, big.getvalue())
    for n, x in theirs.items():
        if name not in NO_STORAGE:  # where the storage is of bytes, PyTorch does not turn them
            assert here[n].tobytes() == bits(torch, x).tobytes()
        assert np.array_equal(here[n], state_dict(raw)[n], equal_nan=True)


@FORMATS
def test_whole_models(torch, zip_format):
    net, *_ = trained(torch, "SGD")
    for content, key in [(net, None), ({"model": net, "epoch": 3}, None), ({"model": net, "epoch": 3}, "model")]:
        with pytest.raises(ValueError, match=r"a whole model of the class 'torch\.nn\.modules\.container\.Sequential") as error:
            state_dict(saved(torch, content, zip_format), key)
        assert error.match(r": torch\.save\(model\.state_dict\(\), path\) writes what can be read")


def test_programs(torch, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"a TorchScript program, no checkpoint: torch\.save\(torch\.jit\.load"):
        state_dict((tmp_path / "w.pt").read_bytes())
    torch.export.save(torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),)), tmp_path / "w.pt2")
    with pytest.raises(ValueError, match=r"a program of torch\.export, no checkpoint"):
        state_dict((tmp_path / "w.pt2").read_bytes())


def test_safetensors_of_all_types(torch, tmp_path):
    from safetensors.torch import save_file

    from minidl import weights

    types = [*READ[:-1], *NO_STORAGE[:-1]]  # the format has neither complex128 nor complex32
    tensors = {name: of_type(torch, name).reshape(2, 3, 4) for name in types}
    save_file(tensors, tmp_path / "w")
    arrays, _ = weights.load_arrays(tmp_path / "w")
    assert arrays.keys() == tensors.keys()
    for name, x in tensors.items():
        expected = bits(torch, x)
        assert arrays[name].dtype == expected.dtype and arrays[name].shape == (2, 3, 4)
        assert same_numbers(arrays[name], expected, name)
