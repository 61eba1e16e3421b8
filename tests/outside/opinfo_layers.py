"""minidl in PyTorch's words, once more: for PyTorch's databases of modules and of optimisers.

A module is seen as a function of its inputs and of its parameters and buffers, its `state`; an optimiser as a function of the
parameters and of the gradients of some steps. So both run like an op, see `opinfo`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from minidl import Parameter, Tensor, nn, ops, optim
from tests.outside import opinfo
from tests.outside.opinfo import Missing
from tests.outside.opinfo_run import Sample, seed, tensors

# ---- layers: constructors with PyTorch's arguments


def conv2d(in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, **more)


def batch_norm2d(
    num_features: int,
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    affine: bool = True,
    track_running_stats: bool = True,
    bias: bool = True,
) -> nn.BatchNorm2d:
    if momentum is None:
        raise Missing("BatchNorm2d(momentum=None)")
    if not (affine and bias and track_running_stats):
        raise Missing("BatchNorm2d without weight, bias or running statistics")
    return nn.BatchNorm2d(num_features, eps, momentum)


def max_pool2d(kernel_size: Any, stride: Any = None, padding: Any = 0, return_indices: bool = False) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size, stride, padding)


def avg_pool2d(kernel_size: Any, stride: Any = None, padding: Any = 0, divisor_override: int | None = None) -> nn.AvgPool2d:
    if divisor_override is not None:
        raise Missing("AvgPool2d(divisor_override)")
    return nn.AvgPool2d(kernel_size, stride, padding)


def global_avg_pool2d(output_size: Any) -> nn.GlobalAvgPool2d:
    if output_size != 1:
        raise Missing("more than one pixel")
    return nn.GlobalAvgPool2d()


def gelu(approximate: str = "none") -> nn.GELU:
    if approximate != "tanh":
        raise Missing(f"GELU(approximate={approximate!r})")
    return nn.GELU()


def layer(make: Callable[..., nn.Module]) -> Callable[..., list[Tensor]]:
    """The output of the module, and its running statistics after the call."""

    def call(*inputs: Tensor, made: list[Any], state: dict[str, Tensor], training: bool) -> list[Tensor]:
        args, more = made
        module = make(*args, **more).to(dtype=inputs[0].dtype).train(training)
        module.load_state_dict({name: x.data for name, x in state.items()})
        for name, x in state.items():
            if x.requires_grad:
                vars(module)[name] = x
        y = module(*inputs)
        return [y, *(Tensor(getattr(module, name)) for name in state if name.startswith("running"))]

    return call


LAYERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "nn_Conv2d": ("Conv2d", layer(conv2d)),
    "nn_Linear": ("Linear", layer(nn.Linear)),
    "nn_BatchNorm2d": ("BatchNorm2d", layer(batch_norm2d)),
    "nn_MaxPool2d": ("MaxPool2d", layer(max_pool2d)),
    "nn_AvgPool2d": ("AvgPool2d", layer(avg_pool2d)),
    "nn_AdaptiveAvgPool2d": ("AdaptiveAvgPool2d", layer(nn.AdaptiveAvgPool2d)),
    "nn_AdaptiveAvgPool2d then flatten": ("GlobalAvgPool2d", layer(global_avg_pool2d)),
    "nn_ReLU": ("ReLU", layer(nn.ReLU)),
    "nn_LeakyReLU": ("LeakyReLU", layer(nn.LeakyReLU)),
    "nn_Sigmoid": ("Sigmoid", layer(nn.Sigmoid)),
    "nn_Tanh": ("Tanh", layer(nn.Tanh)),
    "nn_GELU": ("GELU", layer(gelu)),
}

# modules of PyTorch that are functions in minidl: their settings are arguments
FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "nn_Softmax": ("softmax", opinfo.softmax(ops.softmax)),
    "nn_LogSoftmax": ("log_softmax", opinfo.softmax(ops.log_softmax)),
    "nn_Softplus": ("softplus", opinfo.softplus),
    "nn_MSELoss": ("mse", opinfo.mse_loss),
    "nn_BCEWithLogitsLoss": ("binary_cross_entropy_with_logits", opinfo.binary_cross_entropy_with_logits),
    "nn_CrossEntropyLoss": ("cross_entropy", opinfo.cross_entropy),
}

MODULES = LAYERS | FUNCTIONS
UNMATCHED = dict.fromkeys(("Dropout", "Flatten", "Identity", "Module", "ModuleList", "Sequential"), "PyTorch's has none") | {
    "GroupNorm": "its calls that must fail do so before there is a module; the database of ops has group_norm",
    "TopKPool2d": "PyTorch has none",
}


def modules_of_minidl() -> set[str]:
    return {name for name in nn.__all__ if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module)}


def module_samples(info: Any, entry: str, dtype: torch.dtype) -> Iterator[Sample]:
    for training in (True, False) if info.train_and_eval_differ else (True,):
        seed()
        for sample in info.module_inputs_func(info, "cpu", dtype, True, training):
            yield module_sample(info, entry, dtype, training, sample.constructor_input, sample.forward_input)


def module_error_samples(info: Any, entry: str) -> Iterator[Sample]:
    seed()
    if info.module_error_inputs_func is not None:
        for error in info.module_error_inputs_func(info, "cpu", torch.float64, False, True):
            sample = error.module_error_input
            yield module_sample(info, entry, torch.float64, True, sample.constructor_input, sample.forward_input)


def module_sample(info: Any, entry: str, dtype: torch.dtype, training: bool, made: Any, called: Any) -> Sample:
    inputs = (*called.args, *called.kwargs.values())
    if entry in FUNCTIONS:
        return inputs, inspect.signature(info.module_cls).bind(*made.args, **made.kwargs).arguments
    module = info.module_cls(*made.args, **made.kwargs).to(dtype)
    state = {name: torch.rand_like(x).add_(0.5) if x.is_floating_point() else x for name, x in module.state_dict().items()}
    for name, _ in module.named_parameters():
        state[name].requires_grad_()
    return inputs, {"made": [made.args, made.kwargs], "state": state, "training": training}


def module_of_torch(info: Any, entry: str) -> Callable[..., Any]:
    """The same function in PyTorch."""

    def call(*inputs: Any, made: Any, state: Any, training: bool) -> Any:
        args, more = made
        module = info.module_cls(*args, **more).train(training)
        y = torch.func.functional_call(module, state, inputs)
        y = y.flatten(1) if entry.endswith("then flatten") else y
        return (y[0] if isinstance(y, tuple) else y, *(x for name, x in state.items() if name.startswith("running")))

    return call if entry not in FUNCTIONS else lambda *inputs, **settings: info.module_cls(**settings)(*inputs)


# ---- optimisers


def sgd(params: Any, *, lr: float = 1e-3, dampening: float = 0, maximize: bool = False, **more: Any) -> optim.SGD:
    if dampening:
        raise Missing("SGD(dampening)")
    if maximize:
        raise Missing("maximize")
    return optim.SGD(params, lr, **more)


def adamw(params: Any, *, lr: float = 1e-3, maximize: bool = False, amsgrad: bool = False, **more: Any) -> optim.AdamW:
    if maximize:
        raise Missing("maximize")
    if amsgrad:
        raise Missing("amsgrad")
    if "foreach" in more:
        raise Missing("foreach")
    return optim.AdamW(params, lr, **more)


def adam(params: Any, *, weight_decay: float = 0, **more: Any) -> optim.AdamW:
    if weight_decay > 0:
        raise Missing("Adam(weight_decay), which is added to the gradient")
    return adamw(params, weight_decay=weight_decay, **more)


def steps(make: Callable[..., Any]) -> Callable[..., list[Tensor]]:
    """The parameters after a step with each of the lists of gradients."""

    def run(params: Any, gradients: list[list[Tensor | None]], **settings: Any) -> list[Tensor]:
        made: dict[int, Parameter] = {}

        def parameter(x: Any) -> Any:
            if isinstance(x, Tensor):
                return made.setdefault(id(x), Parameter(x.data.copy()))
            if isinstance(x, dict):
                return {key: parameter(value) for key, value in x.items()}
            return [parameter(item) for item in x] if isinstance(x, list) else x

        lr = settings.get("lr")
        if isinstance(lr, Tensor) and lr.size == 1:
            settings["lr"] = lr.item()
        optimiser = make(parameter(params), **settings)
        for some in gradients:
            for p, g in zip(made.values(), some, strict=True):
                p.grad = None if g is None else g.data
            optimiser.step()
        return list(made.values())

    return run


OPTIMISERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "SGD": ("SGD", steps(sgd)),
    "AdamW": ("AdamW", steps(adamw)),
    "Adam": ("AdamW", steps(adam)),
}


def steps_of_torch(info: Any) -> Callable[..., Any]:
    """The same function in PyTorch."""

    def run(params: Any, gradients: Any, **settings: Any) -> Any:
        made = [x.clone().requires_grad_() for x in params]
        optimiser = info.optim_cls(made, **settings)
        for some in gradients:
            for p, g in zip(made, some, strict=True):
                p.grad = g
            optimiser.step()
        return tuple(p.detach() for p in made)

    return run


def optimiser_samples(info: Any, dtype: torch.dtype) -> Iterator[Sample]:
    """Each setting for three parameters and five steps, in one of which the second parameter has no gradient."""
    shapes = (3, 4), (5,), ()
    for sample in info.optim_inputs_func(device="cpu", dtype=dtype):
        seed()
        gradients: list[list[Any]] = [[torch.randn(shape, dtype=dtype) for shape in shapes] for _ in range(5)]
        gradients[2][1] = None
        yield ([torch.randn(shape, dtype=dtype) for shape in shapes], gradients), sample.kwargs


def optimiser_error_samples(info: Any) -> Iterator[Sample]:
    for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        sample = error.optimizer_error_input
        for x in tensors(sample.params):
            x.requires_grad_(False)
        yield ([torch.zeros(2, dtype=torch.float64)] if sample.params is None else sample.params, []), sample.kwargs
