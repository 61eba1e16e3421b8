"""Forward, loss and backward of a training step as one CUDA graph: Python runs once, the GPU every time.

    gradients = CapturedGradients(model, ops.cross_entropy)
    for x, labels in loader:  # arrays on the GPU
        loss, logits = gradients(x, labels)  # and every p.grad
        optimizer.step()

A step of a small net is hundreds of kernels of a few microseconds each, and Python takes longer to start one than the GPU to
run it. At the first batch of a shape, CuPy's stream writes down which kernels are started on which addresses (it captures
them); from then on one call starts them all, in the same order: the same bits, without Python.

So whatever Python decides is decided once, for all batches of a shape, and every address stays the same:

- the batch is copied into arrays of the graph, and loss, logits and gradients are arrays of the graph, which the next call
  overwrites: copy what is to be kept;
- batch norm makes new arrays of running statistics at each forward pass; here they are copied back to where they were;
- memory that is free again within the graph serves other arrays of the graph, and nobody else: it has a pool of its own;
- the update stays outside. It takes few kernels, see `minidl.optim`, and so the learning rate may change from step to step,
  which as a number of Python's would be captured as it was at first;
- nothing may be read back (`item()`, `float(loss)`) or drawn: dropout would drop the same elements for ever, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from minidl import kernels
from minidl.array import Array, array_module, device_of
from minidl.core import Tensor
from minidl.nn import Module
from minidl.train.loss import main_logits
from minidl.train.loss_scale import LossScale

Loss = Callable[[Any, Array], Tensor]  # (output of the model, labels) -> scalar


class CapturedGradients:
    """Callable: f(x, labels) -> loss (), logits, as arrays, with d loss / d p in every `p.grad`, all on the GPU.

    With a `scale`, for mixed precision, it is d (scale loss) / d p: `if scale.unscale(model.parameters()): optimizer.step()`.

    Make it after `model.to("gpu")` and after the optimiser, both of which move parameters. Modes (`train`, `frozen`,
    `mixed`, `kernels.use`) are those of the first call with a shape.

    Raises ValueError where the model draws random numbers, x is not on the GPU, or the parameters have moved since.
    """

    def __init__(self, model: Module, loss: Loss, scale: LossScale | None = None) -> None:
        if model.generators():
            raise ValueError("model: it draws random numbers (dropout), which a CUDA graph would repeat at every step")
        self.model, self.loss, self.scale = model, loss, scale
        self.graphs: dict[tuple[Any, ...], _Graph] = {}

    def __call__(self, x: Array, labels: Array) -> tuple[Array, Array]:
        xp = array_module(x)
        if device_of(x) != "gpu":
            raise ValueError("x: a CUDA graph needs it on the GPU, and it is on the cpu")
        shape = x.shape, x.dtype, labels.shape, labels.dtype
        if shape not in self.graphs:
            self.graphs[shape] = _Graph(xp, self.model, self.loss, self.scale, x, labels)
        return self.graphs[shape](x, labels)


class _Graph:
    """The graph for one shape, and all arrays that it reads and writes"""

    def __init__(self, xp: Any, model: Module, loss: Loss, scale: LossScale | None, x: Array, labels: Array) -> None:
        self.cuda, self.model, self.parameters, self.scale = xp.cuda, model, model.parameters(), scale
        self.addresses = [p.data for p in self.parameters]
        self.buffers = [(module, name, getattr(module, name)) for module in model.modules() for name in module.buffer_names]
        self.pool, stream = xp.cuda.MemoryPool(), xp.cuda.Stream(non_blocking=True)
        xp.cuda.get_current_stream().synchronize()
        with xp.cuda.using_allocator(self.pool.malloc), stream:
            self.x, self.labels = x.copy(), labels.copy()
            self.factor: Any = None if scale is None else xp.full((), scale.scale, xp.float32)  # of the loss
            before = [buffer.copy() for _, _, buffer in self.buffers]
            self._work(loss)  # what runs for the first time is compiled, and fills the pool
            for (_, _, buffer), value in zip(self.buffers, before, strict=True):
                buffer[...] = value
            kernels.prepare_capture(xp)
            stream.synchronize()
            stream.begin_capture()
            try:
                self.results = self._work(loss)
            except BaseException:
                with suppress(Exception):  # CUDA's, that what was captured is of no use
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()
        self.gradients = [p.grad for p in self.parameters]

    def _work(self, loss: Loss) -> tuple[Array, Array]:
        for p in self.parameters:
            p.grad = None
        output = self.model(self.x)
        value = loss(output, self.labels)
        value.backward(self.factor)
        self._keep_buffers()
        return value.data, main_logits(output).data

    def _keep_buffers(self) -> None:
        """What a forward pass, of this graph or outside of it, has put in the place of a buffer is copied into the buffer."""
        for module, name, buffer in self.buffers:
            if (value := getattr(module, name)) is not buffer:
                buffer[...] = value
                setattr(module, name, buffer)

    def __call__(self, x: Array, labels: Array) -> tuple[Array, Array]:
        if any(p.data is not a for p, a in zip(self.parameters, self.addresses, strict=True)):
            raise ValueError("model: its parameters have moved since the graph was captured; make a new CapturedGradients")
        self._keep_buffers()
        self.x[...], self.labels[...] = x, labels
        if self.scale is not None:
            self.factor.fill(self.scale.scale)
        self.graph.launch(self.cuda.get_current_stream())
        for p, g in zip(self.parameters, self.gradients, strict=True):
            p.grad = g
        return self.results
