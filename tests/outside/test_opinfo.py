"""PyTorch's test databases as an oracle: of ops (OpInfo), of modules and of optimisers, with what they refuse.

Values and gradients in float64 with both families of kernels, and in float32 with the compiled ones. Every sample lands in one
bin, see `opinfo_run`; the counts are printed at the end of the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402
from torch.testing._internal.common_modules import module_db  # noqa: E402
from torch.testing._internal.common_optimizers import optim_db  # noqa: E402

from minidl import ops  # noqa: E402
from tests.outside import opinfo, opinfo_layers, opinfo_run  # noqa: E402
from tests.outside.opinfo import ADAPTERS, OPERATORS, SUMS  # noqa: E402
from tests.outside.opinfo_differences import DIFFERENCES, KINDS  # noqa: E402
from tests.outside.opinfo_layers import MODULES, OPTIMISERS  # noqa: E402
from tests.outside.opinfo_run import TOLERANCE, Bins, Sample  # noqa: E402

pytestmark = pytest.mark.oracle

OPS = {f"{op.name}/{op.variant_test_name}".removesuffix("/"): op for op in op_db}
MODULE_INFOS = {info.formatted_name: info for info in module_db}
OPTIMISER_INFOS = {info.optim_cls.__name__: info for info in optim_db}
SUITES = {"ops": ADAPTERS, "modules": MODULES, "optimisers": OPTIMISERS}

Report = Callable[[str, str, Bins], None]


def test_everything_is_mapped_or_listed() -> None:
    for mapped, unmatched, everything in (
        (ADAPTERS, opinfo.UNMATCHED, {*ops.__all__} | OPERATORS),
        (opinfo_layers.LAYERS, opinfo_layers.UNMATCHED, opinfo_layers.modules_of_minidl()),
    ):
        names = {name for covered, _ in mapped.values() for name in covered.split()}
        assert names | unmatched.keys() == everything
        assert not names & unmatched.keys()
    for row in DIFFERENCES:
        assert row.what in KINDS
        assert set(row.entries.split()) <= ADAPTERS.keys() | MODULES.keys() | OPTIMISERS.keys()


@pytest.mark.parametrize("entry", ADAPTERS)
def test_op(entry: str, report: Report) -> None:
    op, adapter = OPS[entry.removesuffix(" then relu")], ADAPTERS[entry][1]
    theirs = op.op if entry in OPS else lambda *args, **more: torch.relu(op.op(*args, **more))
    run = partial(opinfo_run.run, adapter, theirs, sums=entry in SUMS)
    report("ops", entry, bins(entry, run, lambda dtype: opinfo_run.samples(op, dtype), opinfo_run.error_samples(op), adapter))


@pytest.mark.parametrize("entry", MODULES)
def test_module(entry: str, report: Report) -> None:
    info, adapter = MODULE_INFOS[entry.removesuffix(" then flatten")], MODULES[entry][1]
    run = partial(opinfo_run.run, adapter, opinfo_layers.module_of_torch(info, entry), sums=True)
    samples = partial(opinfo_layers.module_samples, info, entry)
    report("modules", entry, bins(entry, run, samples, opinfo_layers.module_error_samples(info, entry), adapter))


@pytest.mark.parametrize("entry", OPTIMISERS)
def test_optimiser(entry: str, report: Report) -> None:
    info, adapter = OPTIMISER_INFOS[entry], OPTIMISERS[entry][1]
    run = partial(opinfo_run.run, adapter, opinfo_layers.steps_of_torch(info), sums=False)
    samples = partial(opinfo_layers.optimiser_samples, info)
    report("optimisers", entry, bins(entry, run, samples, opinfo_layers.optimiser_error_samples(info), adapter))


def bins(
    entry: str,
    run: Callable[..., Any],
    samples: Callable[[Any], Iterable[Sample]],
    error_samples: Iterable[Sample],
    adapter: Callable[..., Any],
) -> Bins:
    """Where the samples land, in each dtype, and those that PyTorch refuses."""
    found = Bins(entry)
    for dtype in TOLERANCE:
        for sample in samples(dtype):
            found.put(partial(run, sample=sample, dtype=dtype), sample)
    for sample in error_samples:
        found.put(partial(opinfo_run.run_error, adapter, sample), sample, "error input ")
    return found


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Of PyTorch's, for the time of these tests: where the cores are busy, each start of several takes some milliseconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def report(tmp_path_factory: pytest.TempPathFactory, tell: Callable[[str], None]) -> Report:
    """report(suite, entry, bins) fails where there are faults and tells the counts; the last entry of a suite tells the total.

    The entries may run in several processes, so their counts lie in a folder that all of these share.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "counts"

    def check_and_tell(suite: str, entry: str, bins: Bins) -> None:
        bins.check()
        assert bins.count["agreed"] or not bins.count["refused"], f"{entry}: every sample is refused: {written(bins.count)}"
        tell(f"{entry} ({SUITES[suite][entry][0]}): {written(bins.count)}")
        (folder / suite).mkdir(parents=True, exist_ok=True)
        page = folder / suite / str([*SUITES[suite]].index(entry))
        page.with_suffix(".new").write_text(json.dumps(bins.count))
        page.with_suffix(".new").rename(page)
        pages = [p for p in (folder / suite).iterdir() if not p.suffix]
        if len(pages) == len(SUITES[suite]) and first_to_make(folder / f"{suite}.total"):
            total = sum((Counter(json.loads(p.read_text())) for p in pages), Counter())
            tell(f"all {len(pages)} entries of PyTorch's {suite}:")
            for name, n in sorted(total.items()):
                tell(f"    {n} {name}")

    return check_and_tell


def first_to_make(file: Path) -> bool:
    try:
        file.open("x").close()
    except FileExistsError:
        return False
    return True


def written(count: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(count.items()))


def test_what_has_no_entry(tell: Callable[[str], None]) -> None:
    for name, why in (opinfo.UNMATCHED | opinfo_layers.UNMATCHED).items():
        tell(f"{name}: no entry, {why}")
