"""Every figure that a machine with a GPU can give, by one command:

    python -m tests.benchmarks.gpu --root FOLDER_OF_CIFAR10 [--json gpu.json] [--quick] [--only PART ...]

    tests      what takes a device, tested on it: tests/gpu/test_on_gpu.py
    peak       what the device reaches: GB/s of a copy, TFLOP/s of a large product, by cuBLAS
    kernels    the hot paths at the sizes of ResNet-20, batch 1,024: GB/s and TFLOP/s beside that peak
    steps      training steps of ResNet-20 and DenseNet-BC-100 in float32: minidl, minidl in a CUDA graph, PyTorch eager (also
               channels_last) and in a CUDA graph, in turns, each in a process of its own; memory beside
    steps_float16, steps_tf32    the same in mixed precision, and with products of matrices in TF32
    agreement  the losses of the first steps from one seed on the CPU and twice on the GPU: the first two agree within
               rounding, the last two bit for bit
    resnet20, resnet20_float16    trained on CIFAR-10 for 15 epochs, to the accuracy of the CPU, with the time
    fast, fast_float16    examples/fast_cifar.py, in TF32 and in mixed precision: how soon 94% of the test images are right
    explain    a saliency map and a perturbation mask for each of 1,000 images, beside the CPU

Each part has a process of its own and a limit of time, and is written to the JSON file as soon as it is done; one that fails is
told with its error, and the rest goes on. The same command again does what is missing in that file. PyTorch takes part where
it is installed for CUDA. --quick takes minutes and shows the order of magnitude. --rehearse goes through all of it at the
smallest sizes on a machine without a GPU, with the tests' stand-in for CuPy: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import models
from minidl import analysis, data, explain, kernels, train
from minidl.array import array_module, to_cpu, to_gpu
from minidl.kernels import cublas
from tests.benchmarks import minidl_steps
from tests.benchmarks.duel import Contestants, Worker, in_turns
from tests.gpu import strict_cupy

CASES = (("resnet20", 128), ("resnet20", 1024), ("densenet_bc100_12", 64), ("densenet_bc100_12", 512))
PRECISIONS = {"float32": {"CUPY_TF32": "0"}, "tf32": {"CUPY_TF32": "1"}, "float16": {"CUPY_TF32": "0"}}  # name: environment
CPU_ACCURACY = 0.856  # of ResNet-20 after the same 15 epochs on the CPU
ROOT = Path(__file__).parents[2]

Row = dict[str, Any]  # what, value, unit, note


@dataclass(frozen=True)
class Options:
    root: str = "data"
    quick: bool = False
    rehearse: bool = False
    rounds: int = 7
    seconds: float = 1.0

    def pick(self, full: Any, quick: Any, rehearsed: Any) -> Any:
        return rehearsed if self.rehearse else quick if self.quick else full


def row(what: str, value: float | None, unit: str, note: str = "", **more: Any) -> Row:
    return {"what": what, "value": value, "unit": unit, "note": note, **more}


# ---- the parts: each gives its rows


def tests(options: Options) -> list[Row]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/gpu/test_on_gpu.py"]
    command += ["-n", "0", "-k", "Linear"] if options.rehearse else ["-n", str(min(8, os.cpu_count() or 1))]
    environment = {**os.environ, "MINIDL_TEST_DEVICE": "stand-in" if options.rehearse else "gpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    count, failed = (re.search(rf"(\d+) {word}", done.stdout) for word in ("passed", "failed"))
    if not count:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    names = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    note = f"{failed[1] if failed else 0} failed {' '.join(names)}".strip()
    return [row("tests on the device", int(count[1]), "passed", note, output=done.stdout[-8000:] if failed else "")]


def peak(options: Options) -> list[Row]:
    rows, n, size = [], options.pick(1 << 28, 1 << 27, 1 << 10), options.pick(8192, 4096, 16)
    xp = array_module(to_gpu(np.zeros(1)))
    x = xp.zeros(n, "float32")
    rows.append(row("peak: copy of an array", 2 * x.nbytes / timed(x.copy, options) / 1e9, "GB/s", "read and written"))
    rng = np.random.default_rng(0)
    for precision in ("float32", "float16"):
        a = to_gpu(rng.standard_normal((size, size), np.float32)).astype(precision)
        seconds = timed(lambda a=a: cublas.matmul(a, a), options)
        tf32 = " (TF32)" if precision == "float32" and os.environ.get("CUPY_TF32", "0") != "0" else ""
        rows.append(row(f"peak: product of {size}x{size} {precision}{tf32}", 2 * size**3 / seconds / 1e12, "TFLOP/s"))
    return rows


def hot_paths(options: Options) -> list[Row]:
    """Compulsory traffic: every array among arguments and results once"""
    N = options.pick(1024, 1024, 2)
    rng, rows = np.random.default_rng(0), []
    k = kernels.of(to_gpu(np.zeros(1, np.float32)))
    for C, size in ((16, 32), (64, 8)):
        x, r, gy = (to_gpu(rng.standard_normal((N, C, size, size), np.float32)) for _ in range(3))
        w, one = to_gpu(rng.standard_normal((C, C, 3, 3), np.float32)), to_gpu(np.ones(C, np.float32))
        same, flops = ((1, 1), (1, 1), (1, 1), 1), 2 * x.size * C * 9
        y, mean, var = k.batch_norm_relu(x, r, one, one, 1e-5)
        p, g, v = (to_gpu(rng.standard_normal(1 << options.pick(24, 22, 4)).astype(np.float32)) for _ in range(3))
        calls: dict[str, tuple[Callable[..., Any], list[Any], float]] = {
            "conv2d 3x3": (k.conv2d, [x, w, None, *same], flops),
            "conv2d_grad_x 3x3": (k.conv2d_grad_x, [gy, w, x.shape, *same], flops),
            "conv2d_grad_w 3x3": (k.conv2d_grad_w, [gy, x, w.shape, *same], flops),
            "batch_norm_relu": (k.batch_norm_relu, [x, r, one, one, 1e-5], 0),
            "batch_norm_relu_grad": (k.batch_norm_relu_grad, [gy, y, x, one, mean, var, 1e-5, True], 0),
            "max_pool2d": (k.max_pool2d, [x, (2, 2), (2, 2), (0, 0), (size // 2, size // 2)], 0),
        }
        if size == 8:
            calls["sgd_update"] = k.sgd_update, [p, g, v, 0.1, 0.9, True, 5e-4], 0
        for name, (f, args, work) in calls.items():
            result = f(*args)
            arrays = [a for a in (*args, *(result if isinstance(result, tuple) else (result,))) if hasattr(a, "nbytes")]
            seconds, traffic = timed(lambda f=f, args=args: f(*args), options), sum(a.nbytes for a in arrays)
            note = f"{traffic / seconds / 1e9:.0f} GB/s" + (f", {work / seconds / 1e12:.2f} TFLOP/s" if work else "")
            shape = "x".join(map(str, args[0].shape))
            rows.append(row(f"{name} of {shape}", seconds * 1e6, "us", note, bytes=traffic, flop=work))
    return rows


def timed(f: Callable[[], Any], options: Options) -> float:
    """Seconds that the GPU takes for a call, the median of rounds: calls in a CUDA graph, which wait for no Python"""
    xp, calls, times = array_module(to_gpu(np.zeros(1))), 1 if options.rehearse else 10, []
    pool, stream = xp.cuda.MemoryPool(), xp.cuda.Stream(non_blocking=True)
    with xp.cuda.using_allocator(pool.malloc), stream:
        f()  # compiles
        launch = f if options.rehearse else _captured(xp, stream, f, calls)
        for _ in range(options.pick(6, 4, 2)):
            stream.synchronize()
            start = time.perf_counter()
            launch()
            stream.synchronize()
            times.append((time.perf_counter() - start) / calls)
    return statistics.median(times[1:])


def _captured(xp: Any, stream: Any, f: Callable[[], Any], calls: int) -> Callable[[], None]:
    cublas.handle_of(xp)
    stream.synchronize()
    stream.begin_capture()
    for _ in range(calls):
        f()
    graph = stream.end_capture()
    return lambda: graph.launch(stream)


def steps(options: Options, precision: str = "float32") -> list[Row]:
    """Each contestant has one process for all cases."""
    rows, environment = [], dict(PRECISIONS[precision])
    cases = options.pick(CASES, CASES[::2], (("resnet8", 2),))
    torch_device = "cpu" if options.rehearse and importlib.util.find_spec("torch") else _torch_device()
    if options.rehearse:
        environment |= {"MINIDL_TEST_DEVICE": "stand-in", "MINIDL_KERNELS": "reference"}
    ours, theirs = "tests.benchmarks.minidl_steps", "tests.benchmarks.torch_steps"
    stored = "float16" if precision == "float16" else "float32"
    how: dict[str, tuple[str, tuple[Any, ...]]] = {  # label: module, and what follows (net, "step", batch, size)
        "minidl": (ours, ("gpu", stored)),
        "minidl, CUDA graph": (ours, ("gpu", stored, True)),
    }
    if torch_device:
        how |= {
            "PyTorch": (theirs, ("", "", torch_device, stored)),
            "PyTorch, channels_last": (theirs, ("channels_last", "", torch_device, stored)),
            "PyTorch, CUDA graph": (theirs, ("", "", torch_device, stored, True)),
        }
    workers = {label: Worker(module, environment) for label, (module, _) in how.items()}
    for name, batch in cases:
        contestants = {label: (worker, (name, "step", batch, 32, *how[label][1])) for label, worker in workers.items()}
        rows += step(f"{name}, batch {batch}, {precision}", contestants, options)
    for worker in workers.values():
        worker.close()
    return rows


def step(what: str, contestants: Contestants, options: Options) -> list[Row]:
    """Of a contestant that fails the error is told, and the others go on."""
    rows, ready = [], Contestants()
    for label, (worker, case) in contestants.items():
        try:
            worker.ask("prepare", *case)
            ready[label] = worker, case
        except (RuntimeError, OSError) as error:  # also of a process that has died
            rows.append(row(f"{what}: {label}", None, "ms", f"FAILED: {error}"))
    rounds, seconds = options.pick(options.rounds, 3, 1), options.pick(options.seconds, 0.3, 0.0)
    times = in_turns(ready, rounds, seconds)
    for label, ts in times.items():
        worker, (name, _, batch, *_) = ready[label]
        flop = 6 * analysis.cost(getattr(models, name)(), (1, 3, 32, 32)).multiply_adds * batch  # backward is twice forward
        ms = statistics.median(ts) * 1e3
        found = row(f"{what}: {label}", ms, "ms", flop=flop)
        with contextlib.suppress(RuntimeError):  # a rehearsal has no memory to ask for
            found["device_mib"] = worker.ask("device memory") / 2**20
        notes = [f"{flop / ms / 1e9:.2f} TFLOP/s", f"{found.get('device_mib', 0):.0f} MiB"]
        for other in ("PyTorch", "PyTorch, CUDA graph"):
            if label.startswith("minidl") and other in times:
                ratio = statistics.median(a / b for a, b in zip(ts, times[other], strict=True))
                notes.append(f"{ratio:.2f} x {other}")
                found[f"over {other}"] = ratio
        rows.append({**found, "note": ", ".join(notes)})
    return rows


def _torch_device() -> str:
    if importlib.util.find_spec("torch") is None:
        return ""
    import torch

    return "cuda" if torch.cuda.is_available() else ""


def agreements(options: Options) -> list[Row]:
    rows, (count, batch) = [], options.pick((5, 64), (5, 64), (2, 2))
    for name in options.pick(("resnet20", "densenet_bc100_12"), ("resnet20",), ("resnet8",)):
        found = agreement(name, count, batch)
        note = "two runs on the GPU have the same bits" if found["same_bits"] else "two runs on the GPU DIFFER"
        what = f"{name}: losses of {count} steps, CPU and GPU differ by"
        rows.append(row(what, found["difference"], "of them", note, **found))
    return rows


def agreement(name: str, count: int, batch: int) -> Row:
    """Losses of the first steps from one seed, and by what part of itself a loss differs most"""
    cpu, gpu, again = (_losses(name, device, count, batch) for device in ("cpu", "gpu", "gpu"))
    difference = max(abs(a - b) / abs(a) for a, b in zip(cpu, gpu, strict=True))
    return {"name": name, "cpu": cpu, "gpu": gpu, "difference": difference, "same_bits": gpu == again}


def _losses(name: str, device: str, count: int, batch: int) -> list[float]:
    take_step = minidl_steps.setup(name, "step", batch, 32, device)
    return [take_step() for _ in range(count)]


def resnet20(options: Options, precision: str = "float32") -> list[Row]:
    sets, batch_size = _images(options), options.pick(128, 128, 8)
    constructor = options.pick(models.resnet20, models.resnet20, models.resnet8)
    how = {"precision": precision, "cuda_graph": not options.rehearse}
    settings = train.Settings(epochs=options.pick(15, 2, 1), batch_size=batch_size, device="gpu", **how)
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        *_, last = found = train.fit(constructor(num_classes=len(sets[0].classes)), sets[0], settings, out, sets[1])
        wall = time.perf_counter() - start
    note = (
        f"{last['validation_accuracy']:.1%} of the test images right (always the largest class: "
        f"{last['validation_majority_accuracy']:.1%}; CPU after 15 epochs: {CPU_ACCURACY:.1%})"
    )
    seconds, note = sum(r["seconds"] for r in found), f"{note}; {wall:.1f} s with tests"
    return [row(f"ResNet-20, {settings.epochs} epochs, {precision}, CUDA graph", seconds, "s", note, rows=found)]


def fast(options: Options, precision: str = "float32") -> list[Row]:
    sys.path.insert(0, str(ROOT / "examples"))
    import fast_cifar

    small = options.pick({}, {"epochs": 4}, {"epochs": 1, "batch_size": 8, "width": 0.1})
    recipe = fast_cifar.Recipe(device="gpu", precision=precision, cuda_graph=not options.rehearse, **small)
    found = fast_cifar.run(*_images(options), recipe)
    label = "TF32" if os.environ.get("CUPY_TF32", "0") != "0" and precision == "float32" else precision
    majority = found["majority_accuracy"]
    note = f"{found['accuracy']:.2%} of the test images right (always the largest class: {majority:.1%}; goal 94%)"
    return [row(f"fast_cifar, {recipe.epochs} epochs, {label}, CUDA graph", found["seconds"], "s", note, **found)]


def explanations(options: Options) -> list[Row]:
    """On the CPU some of the images are enough to say what 1,000 would take."""
    rows, count = [], options.pick(1000, 1000, 2)
    x = np.random.default_rng(0).standard_normal((count, 3, 32, 32), np.float32)
    constructor = options.pick(models.resnet20, models.resnet20, models.resnet8)
    methods: dict[str, tuple[Callable[..., Any], dict[str, Any], int]] = {
        "saliency maps": (explain.saliency, {"batch_size": 1000}, options.pick(1000, 250, 1)),
        "perturbation masks": (explain.meaningful_perturbation, {"batch_size": 1000}, options.pick(16, 4, 1)),
    }
    for what, (method, settings, few) in methods.items():
        if options.rehearse and what == "perturbation masks":
            settings = {"iterations": 2}
        seconds = {}
        for device, n in (("gpu", count), ("cpu", few)):
            model, images = constructor(num_classes=10).to(device), to_gpu(x[:n]) if device == "gpu" else x[:n]
            method(model, images[:1], **settings)  # compiles
            start = time.perf_counter()
            to_cpu(method(model, images, **settings).map)
            seconds[device] = (time.perf_counter() - start) * count / n
        note = f"{seconds['cpu']:.1f} s on the CPU (of {few} images), {seconds['cpu'] / seconds['gpu']:.0f} times as long"
        rows.append(row(f"{count:,} {what}", seconds["gpu"], "s", note, **seconds))
    return rows


def _images(options: Options) -> tuple[data.Dataset, data.Dataset]:
    if options.rehearse:
        return data.lesions(16, seed=0), data.lesions(8, seed=1)
    return data.cifar10(options.root), data.cifar10(options.root, train=False)


PARTS: dict[str, tuple[Callable[[Options], list[Row]], int, dict[str, str]]] = {  # seconds at most; environment
    "tests": (tests, 1200, {}),
    "peak": (peak, 120, {}),
    "peak_tf32": (peak, 120, {"CUPY_TF32": "1"}),
    "kernels": (hot_paths, 300, {}),
    "steps": (steps, 1200, {}),
    "steps_float16": (partial(steps, precision="float16"), 1200, {}),
    "steps_tf32": (partial(steps, precision="tf32"), 1200, {}),
    "agreement": (agreements, 600, {}),
    "resnet20": (resnet20, 900, {}),
    "resnet20_float16": (partial(resnet20, precision="float16"), 900, {}),
    "fast": (fast, 600, {"CUPY_TF32": "1"}),
    "fast_float16": (partial(fast, precision="float16"), 600, {}),
    "explain": (explanations, 1200, {}),
}


# ---- all of it


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=os.environ.get("MINIDL_TEST_DATA", "data"), help="the folder that holds CIFAR-10")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, at the smallest sizes")
    parser.add_argument("--rounds", type=int, default=7, help="of the training steps")
    parser.add_argument("--seconds", type=float, default=1.0, help="per contestant and round")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="what is in there is not done again")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    options = Options(args.root, args.quick, args.rehearse, args.rounds, args.seconds)
    if args.child:
        with _stand_in(options):
            print("@" + json.dumps(PARTS[args.child][0](options)), flush=True)
        return
    with _stand_in(options):
        found = _begun(args.json, _machine(parser), options)
    for name in args.only or PARTS:
        if "rows" in found["parts"].get(name, {}):
            continue
        print(f"{name} ...", end=" ", flush=True)
        start = time.perf_counter()
        part = _child(name, options)
        found["parts"][name] = {**part, "seconds": time.perf_counter() - start}
        args.json.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{found['parts'][name]['seconds']:.0f} s" + (f": {part['error'].splitlines()[-1]}" if "error" in part else ""))
    print(table(found))


def _machine(parser: argparse.ArgumentParser) -> Row:
    try:
        x = to_gpu(np.zeros(1, np.float32))
        kernels.of(x)
    except RuntimeError as error:
        parser.exit(1, f"nothing to measure: {error}\n")
    runtime = array_module(x).cuda.runtime
    device = runtime.getDeviceProperties(0)["name"].decode()
    return {"device": device, "driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}


def _begun(path: Path, machine: Row, options: Options) -> dict[str, Any]:
    """What the file holds, if it is of this machine and of these options; else nothing yet"""
    about = {**machine, "quick": options.quick, "rehearse": options.rehearse}
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        if {key: found.get(key) for key in about} == about:
            return found
        raise SystemExit(f"{path} is of another machine or of other options; move it away, or give another --json")
    return {**about, "parts": {}}


def _child(name: str, options: Options) -> Row:
    _, limit, environment = PARTS[name]
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--child", name, "--root", options.root]
    command += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
    command += ["--quick"] * options.quick + ["--rehearse"] * options.rehearse
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=options.pick(limit, limit / 3, limit / 4))
    except BaseException as error:  # Ctrl-C too
        os.killpg(process.pid, 9)  # with the processes of its own
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return {"error": f"not done after {error.timeout:.0f} s"}
    answer = [line for line in out.splitlines() if line.startswith("@")]
    if process.returncode or not answer:
        return {"error": errors[-4000:].strip() or f"exit code {process.returncode}"}
    return {"rows": json.loads(answer[-1][1:])}


@contextlib.contextmanager
def _stand_in(options: Options) -> Iterator[None]:
    """For a rehearsal, what takes the place of CuPy"""
    if not options.rehearse:
        yield
        return
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = strict_cupy.cupy()
    try:
        with kernels.use("reference"):
            yield
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before


def table(found: dict[str, Any]) -> str:
    """A line a figure; what a kernel or a step reaches is also told as a share of the peak, where that was measured."""
    peaks = {r["what"]: r["value"] for name in ("peak", "peak_tf32") for r in found["parts"].get(name, {}).get("rows", [])}
    lines = [f"on {found['device']}" + (" (a rehearsal: the figures mean nothing)" if found["rehearse"] else "")]
    for name, part in found["parts"].items():
        if "error" in part:
            lines.append(f"{name:62} FAILED: {part['error'].splitlines()[-1]}")
        for r in part.get("rows", []):
            value = "-" if r["value"] is None else f"{r['value']:.4g}"
            lines.append(f"{r['what']:62}{value:>12} {r['unit']:8}{r['note']}{_share(r, peaks)}".rstrip())
    return "\n".join(lines)


def _share(r: Row, peaks: dict[str, float]) -> str:
    seconds = (r["value"] or 0) * {"us": 1e-6, "ms": 1e-3}.get(r["unit"], 0)
    if not seconds or not peaks:
        return ""
    if "bytes" in r:
        return f", {r['bytes'] / seconds / 1e9 / peaks['peak: copy of an array']:.0%} of the copy's"
    precision = next(p for p in PRECISIONS if f" {p}:" in r["what"])
    kind = {"float32": "float32", "tf32": "float32 (TF32)", "float16": "float16"}[precision]
    best = max((value for what, value in peaks.items() if what.endswith(f" {kind}")), default=0)
    return f", {r['flop'] / seconds / 1e12 / best:.1%} of the product's" if best else ""


if __name__ == "__main__":
    main()
