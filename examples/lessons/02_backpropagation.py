# %% [markdown]
# # 2. Backpropagation
#
# **Aim.** You see that backpropagation is the chain rule and bookkeeping: a tape in a hundred lines, on which a small net
# learns. Then you meet the same tape in minidl, where each step back can be looked at.
#
# **Read before.** `examples/lessons/tiny.py`, from top to bottom, and lesson 1.

# %%
from course import QUICK, out, panels, show  # before all others, see there

# isort: split
import numpy as np
import tiny

from minidl import Tensor, ops, walk
from minidl.view.figure import BLUE, ORANGE

# %% [markdown]
# ## Predict
#
# 1. y = a b + b with a = 3 and b = 2. What are dy/da and dy/db? And which of the two is a sum over two ways?
# 2. A net has 100,000 weights. How many times as long as computing the loss once does it take to get all 100,000 derivatives:
#    about 3 times, or about 100,000 times?

# %% [markdown]
# ## Numbers
#
# A value that goes two ways into the result gets a gradient from each, and they add up. That is the whole chain rule:
#
#     dL/dx = sum over all y that x goes into of  dL/dy  dy/dx
#
# In `tiny.py` it is the one line `x.grad = x.grad + pull(y.grad)`.

# %%
a, b = tiny.Value(3), tiny.Value(2)
y = a * b + b
y.backward()
print(f"y = {y.data}, dy/da = {a.grad} (it is b), dy/db = {b.grad} (it is a + 1: two ways)")

# %% [markdown]
# Is that right? Change b a little and see how much y changes. That needs two more computations for *each* number, so nobody
# trains a net this way. As a check it is priceless: `minidl/check/gradient.py`.

# %%
h = 1e-6
slope = ((3 * (2 + h) + (2 + h)) - (3 * (2 - h) + (2 - h))) / (2 * h)  # (y(b + h) - y(b - h)) / 2h
print(f"from differences: dy/db = {slope:.6f}")

# %% [markdown]
# ## Arrays
#
# The same tape with arrays in it. Of a product of matrices Y = A B the gradients are two products, and the shapes leave no
# other choice: gA = gY B^T, gB = A^T gY. A bias that is added to every row goes as many ways as there are rows, and gets the
# sum of all their gradients: `fit` in `tiny.py`. Two moons of points, two layers, one loss:
#
#     loss = mean log(1 + exp(-s z)),   z = relu(x W1 + b1) W2 + b2,   s = 1 or -1 the class

# %%
rng = np.random.default_rng(0)
angle, s = rng.uniform(0, np.pi, 200), np.where(np.arange(200) < 100, 1.0, -1.0)[:, None]
x = (np.stack([np.cos(angle), np.sin(angle)], 1) - (0.5, 0.25)) * s + rng.normal(0, 0.1, (200, 2))  # (200,2)
start = [rng.normal(0, 1, (2, 16)), np.zeros(16), rng.normal(0, 0.3, (16, 1)), np.zeros(1)]


def loss_of(W1: tiny.Value, b1: tiny.Value, W2: tiny.Value, b2: tiny.Value) -> tiny.Value:
    z = tiny.relu(tiny.Value(x) @ W1 + b1) @ W2 + b2
    return tiny.mean(tiny.log(tiny.exp(z * (-s)) + 1))


weights, losses = [tiny.Value(w) for w in start], list[float]()
for _ in range(60 if QUICK else 600):
    loss = loss_of(*weights)
    loss.backward()
    losses.append(float(loss.data))
    weights = [tiny.Value(w.data - 0.5 * w.grad) for w in weights]  # a step down the slope
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, {len(tiny.tape(loss))} values on the tape")

# %% [markdown]
# ## The same in minidl
#
# A `Tensor` is a value. An `Op` is the record of one operation: `forward` keeps what `backward` needs (`minidl/core.py`, and
# one family of operations a file in `minidl/ops/`). `walk` goes back along the tape, and hands you each step: the operation,
# the gradient `gy` that arrived at it, and those that leave, `gxs`. `trace(loss).dot()` is the graph in Graphviz's language.

# %%
W1, b1, W2, b2 = (Tensor(w, requires_grad=True) for w in start)
z = ops.relu(Tensor(x) @ W1 + b1) @ W2 + b2  # word for word what stands above
minidl_loss = ops.mean(ops.log(ops.exp(z * Tensor(-s)) + 1))
steps = list(walk(minidl_loss))
for step in steps:
    print(f"{type(step.op).__name__:10} gy {step.gy.shape!s:9} |gy| = {np.linalg.norm(step.gy):.4f}")

first = [tiny.Value(w) for w in start]
loss_of(*first).backward()
worst = max(np.abs(t.grad - v.grad).max() for t, v in zip((W1, b1, W2, b2), first, strict=True))
print(f"the two tapes differ by at most {worst:.1e}")

# %% [markdown]
# ## The image

# %%
BOX = {"boxstyle": "round", "fc": "white", "ec": BLUE}
fig, (graph, curve, plane, back) = panels("A tape of a hundred lines, a net that learnt on it, and its way back", 4, 14)
product = y.made_from[0][0]
places = {a: ("a", 0, 1), b: ("b", 0, 0), product: ("a b", 1, 1), y: ("y = a b + b", 2, 0)}  # name, column, row
for value, (name, *at) in places.items():
    graph.text(*at, f"{name}\nvalue {value.data:g}\ngrad {value.grad:g}", ha="center", va="center", fontsize=9, bbox=BOX)
    for source, _ in value.made_from:
        graph.annotate("", at, places[source][1:], arrowprops={"arrowstyle": "->", "color": BLUE, "shrinkA": 26, "shrinkB": 28})
graph.set(xlim=(-0.4, 2.6), ylim=(-0.4, 1.4))
graph.axis("off")
graph.set_title("b goes two ways: grad 3 + 1", fontsize=10, loc="left")
curve.plot(losses, color=BLUE)
curve.set(xlabel="step", ylim=(0, None))
curve.set_title("loss", fontsize=10, loc="left")
grid = np.stack(np.meshgrid(np.linspace(-2, 2, 80), np.linspace(-2, 2, 80)), -1).reshape(-1, 2)
W1, b1, W2, b2 = (w.data for w in weights)
answers = (np.maximum(grid @ W1 + b1, 0) @ W2 + b2).reshape(80, 80)
plane.contourf(np.tanh(answers), levels=20, cmap="RdBu_r", vmin=-1.5, vmax=1.5, extent=(-2, 2, -2, 2))
plane.scatter(*x.T, c=np.where(s[:, 0] > 0, "#8c1d18", "#0a3d66"), s=8)
plane.set_title("two moons, and what the net says", fontsize=10, loc="left")
plane.set_aspect("equal")
names = [type(step.op).__name__ for step in steps]
back.barh(range(len(steps)), [np.linalg.norm(step.gy) for step in steps], color=ORANGE)
back.set_yticks(range(len(steps)), names)
back.invert_yaxis()
back.set_xscale("log")
back.set_title("|gy| at each step back, the loss above", fontsize=10, loc="left")
show(out("02_backpropagation.png"), "the gradient arrives at every operation, from the loss down to the first layer", fig)

# %% [markdown]
# ## Questions
#
# 1. Why does `tape` sort by number, newest first? What would go wrong if a value stood before one that was made from it?
# 2. What of the forward pass must be kept for the way back: of `+`, of `*`, of `relu`? Where does the memory of training go?
# 3. Why is the way back, from one loss to many weights, so much cheaper than pushing a change of each weight forward?
#
# ## Exercise
#
# Write `backward` of multiplication, of tanh and of a bias that is broadcast, as minidl's operations have it, in
# `examples/exercises/lesson02.py`, then run `python -m pytest examples/exercises -k lesson02`.
