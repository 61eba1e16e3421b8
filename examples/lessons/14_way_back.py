# %% [markdown]
# # 14. The whole way back
#
# **Aim.** You walk one backward pass from the score to the pixels, step by step, on a page in the browser. Then you read the
# same walk as a bookkeeper does: at every step the score is still all there, and you see where one pixel's influence dies.
#
# **Read before.** Lessons 4 and 13, `minidl/flow/ledger.py` and `minidl/flow/pixel.py`.

# %%
from course import first_net, out, panels, show  # before all others, see there

# isort: split
import numpy as np
import step as example  # examples/step.py

from minidl import Tensor, data, ops
from minidl.flow import BackwardPass, ledger, pixel_flow, trace
from minidl.view.figure import BLUE, GREY, ORANGE
from minidl.view.maps import color_scale, draw

# %% [markdown]
# ## Predict
#
# 1. You raise one pixel a little. Of its influence, which share is stopped by the first ReLU it meets: a tenth, or half?
# 2. Take activation times gradient, and add it up over all pixels. Do that again behind every layer. Are these sums equal? If
#    not, what is missing?

# %% [markdown]
# ## The page
#
# Open it. Press a pixel, then the button "to the image", again and again, and follow it. The page is one file, and works
# without a network. `examples/step.py` makes it.

# %%
net = first_net()
NUMBER = 1  # which of the generated images
page = out("14_step.html")
if code := example.main(["--run", str(out("01_net")), "--number", str(NUMBER), "--out", str(page), "--no-open"]):
    raise SystemExit(code)

# %% [markdown]
# ## The same walk, kept
#
# `BackwardPass` goes the way once and keeps all of it. `ops.unfused()` makes convolution, batch norm and relu three steps.
# They are the steps of the page, counted from 0, the score.

# %%
lesion = data.lesions(NUMBER + 1, seed=1).images[NUMBER]
x = Tensor(net.inputs(lesion[None]), requires_grad=True, name="image")
with net.model.eval().frozen(), ops.unfused():
    logits = net.model(x)
score = logits[0, int(logits.data.argmax())]
back = BackwardPass(score)
print("\n".join(str(trace(score)).splitlines()[:8]), "\n...")

# %% [markdown]
# ## The ledger
#
# Every step of this net is linear as long as no gate turns: y = J x + c. Its gradient is gx = J^T gy. So
#
#     <y, gy> = <x, gx> + <c, gy>
#
# What comes out of a step, weighed with how much it counts, is what went in plus what the step's own constants add. Cut the
# net through anywhere: activation times gradient over the cut, plus the biases behind it, is the score. Nothing gets lost.

# %%
lines = ledger(back)
carried = np.array([sum(line.counts.values()) for line in lines])  # sum of activation x gradient, at every cut
biases = np.array([line.biases for line in lines])
print(f"score {score.item():.4f}; at the image {carried[-1]:.4f} of it, and {biases[-1]:.4f} from the biases")
print(f"the {len(lines)} lines differ from the score by at most {np.abs(carried + biases - score.item()).max():.1e}")

# %% [markdown]
# ## One pixel
#
# Now the other way. Raise one pixel, the one with the largest gradient, and push the change t forward. Where it meets the
# gradient g that came back,
#
#     sum over the cut of t g = dS/dx of that pixel
#
# again at every cut. A closed gate stops what arrives at it. What gets through spreads over more and more cells.

# %%
gx = back.gradient(x)  # (1,3,32,32)
index = tuple(int(k) for k in np.unravel_index(np.abs(gx).argmax(), gx.shape))
flow = pixel_flow(back, x, index)
gated = [(k, op) for k, op in enumerate(back.ops) if op in flow.stopped][::-1]  # with their steps, from the image on
names, stopped = [f"{type(op).__name__}, step {k}" for k, op in gated], [flow.stopped[op] for _, op in gated]
print(f"pixel {index[2:]} of colour {index[1]}: dS/dx = {flow.derivative:.4f}")
print(f"the {len(flow.sums)} sums differ by at most {np.ptp(flow.sums):.1e}")
for name, share in zip(names, stopped, strict=True):
    print(f"{name:13} stops {share:.0%} of what arrives")

# %% [markdown]
# ## The image

# %%
fig, (map_ax, account, gates) = panels("One score: where it is in the image, in every cut, and where one pixel dies", 3)
found = np.abs(gx[0]).max(0)
draw(map_ax, lesion, found, color_scale(found))
map_ax.plot(index[3], index[2], "s", ms=9, mfc="none", mec="black", mew=1.5)
map_ax.set(xticks=(), yticks=())
map_ax.set_title("|dS/dx|, and the picked pixel", fontsize=10, loc="left")
at = np.arange(len(lines))  # as the page counts
account.plot(at, carried, color=BLUE, label="activation x gradient")
account.plot(at, biases, color=ORANGE, label="biases behind")
account.plot(at, carried + biases, color=GREY, ls="--", label="both: the score")
account.set(xlabel="step: 0 is the score, the last the image")
account.set_title("the ledger", fontsize=10, loc="left")
account.legend(frameon=False, fontsize=8)
gates.barh(range(len(names)), [100 * share for share in stopped], color=ORANGE)
gates.set_yticks(range(len(names)), names)
gates.invert_yaxis()
gates.set(xlabel="% of what arrives", xlim=(0, 100))
gates.set_title("stopped at each gate, from the image on", fontsize=10, loc="left")
show(out("14_way_back.png"), "nothing of the score is lost on the way back, and every gate stops a part of a pixel", fig)

# %% [markdown]
# ## Questions
#
# 1. At the image the pixels and the biases share the score. What does that say about "gradient x input" as an explanation?
# 2. Where the net has a shortcut, the influence of a pixel goes two ways. Which of them has fewer gates?
# 3. Put a sigmoid in place of a relu. Which of the two accounts still holds, that of the score or that of the pixel?
#
# ## Exercise
#
# Write the arithmetic of one cell, as the page shows it, in `examples/exercises/lesson14.py`, then run `python -m pytest
# examples/exercises -k lesson14`.
