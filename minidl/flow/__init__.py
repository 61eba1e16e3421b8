"""Where the score came from, and where a pixel's influence goes: what a backward pass says besides its gradients.

- `BackwardPass` is a backward pass that is kept: the graph, the gradient on each of its wires, and the cuts between them;
- `ledger` adds up activation times gradient at every cut: with the biases of the steps behind, it is the score;
- `pixel_flow` follows one pixel forward: what arrives, what counts for the score, and what closed gates stop;
- `strongest_path` and `arithmetic` show the numbers that a single cell's gradient is the sum of.

All need a graph in which no parameter requires a gradient. A fused op is one step; to see its parts run the model as in

    with model.eval().frozen(), ops.unfused():
        score = model(Tensor(x, requires_grad=True))[0, target]
"""

from minidl.flow.backward_pass import BackwardPass, Wire
from minidl.flow.cells import Cell, arithmetic, strongest_path
from minidl.flow.ledger import Line, ledger
from minidl.flow.pixel import PixelFlow, pixel_flow
from minidl.flow.trace import Trace, trace

__all__ = [
    "BackwardPass",
    "Cell",
    "Line",
    "PixelFlow",
    "Trace",
    "Wire",
    "arithmetic",
    "ledger",
    "pixel_flow",
    "strongest_path",
    "trace",
]
