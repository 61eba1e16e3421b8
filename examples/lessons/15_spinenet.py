# %% [markdown]
# # 15. Several answers, and the evidence for each
#
# **Aim.** One net answers two questions about an image, with two heads on one body, as SpineNet answers six about a spine.
# Then you ask each head for its own map, and see that the two look at different places.
#
# **Read before.** Lessons 10 and 13, `minidl/explain/evidence.py`, and Jamaludin, Kadir and Zisserman 2017, "SpineNet:
# automated classification and evidence visualization in spinal MRIs".

# %%
from course import QUICK, first_net, out, panels, show  # before all others, see there

# isort: split
import numpy as np

from minidl import Tensor, data, evaluate, explain, inference, metrics, nn, ops
from minidl.optim import AdamW
from minidl.view.maps import color_scale, draw

# %% [markdown]
# ## Predict
#
# 1. The first head says benign or malignant, the second whether there is an ink mark on the skin. Both stand on the same body.
#    On which of the two things in the image will each map lie?
# 2. Both maps go back through the same convolutions. What makes them different at all?

# %% [markdown]
# ## A body and two heads
#
# The body is that of lesson 1, up to the mean over the image: 64 numbers. A head is one linear layer. The loss is the sum of
# the heads' losses, and so the body gets the sum of their gradients:
#
#     L = L_kind + L_mark
#
# Whether there is a mark is a coin that is thrown without a look at the lesion: neither answer helps with the other.


# %%
class TwoHeads(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        self.kind = model.linear  # what lesson 1 learnt
        self.mark = nn.Linear(64, 2, rng=np.random.default_rng(0))
        self.body = model
        self.body.linear = nn.Identity()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)  # (N,64)
        return {"kind": self.kind(h), "mark": self.mark(h)}


def asked(n: int, seed: int) -> tuple[data.Dataset, dict[str, np.ndarray]]:
    """Images, and the right answers of both heads."""
    d = data.lesions(n, seed=seed, mark=(0.5, 0.5))
    return d, {"kind": d.labels, "mark": d.masks["mark"].any((1, 2)).astype(np.int64)}


net = first_net()
model = TwoHeads(net.model)
train_set, labels = asked(200 if QUICK else 3000, seed=15)
optimizer, rng = AdamW(model.parameters(), 2e-3), np.random.default_rng(0)
model.train()
for epoch in range(2 if QUICK else 4):
    for some in rng.permutation(len(train_set)).reshape(-1, 50):
        optimizer.zero_grad()
        answers = model(Tensor(net.inputs(train_set.images[some])))
        losses = [ops.cross_entropy(answers[name], labels[name][some]) for name in answers]
        loss = losses[0] + losses[1]  # L = L_kind + L_mark
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {losses[0].item():.3f} + {losses[1].item():.3f} of the last batch")

# %% [markdown]
# ## Both answers on new images

# %%
model.eval()
test_set, truth = asked(100 if QUICK else 500, seed=16)
x = net.inputs(test_set.images)
for name in "kind", "mark":
    logits = inference.predict(explain.Head(model, name), x)  # one head, as a model of its own
    print(f"{name}: {metrics.accuracy(logits, truth[name]):.1%} right")

# %% [markdown]
# ## A map for each head
#
# Pick one head's score, walk back into the image, take the largest over the colours, and smooth the speckles:
#
#     map = G * max over the colours of |dS_head/dx|
#
# This is in the style of SpineNet's evidence hotspots, which find on their own where in a disc a disease is. Here we know
# where it is. What share of each map lies on the lesion, and on the mark, compared with the area of these?

# %%
marked = np.flatnonzero(truth["mark"] == 1)
maps = explain.evidence_maps(model, x[marked])
for name, e in maps.items():
    on = {part: evaluate.mass_in_mask(e.map, test_set.masks[part][marked]) for part in ("lesion", "mark")}
    said = ", ".join(f"{s.value.mean() / s.chance.mean():.1f} times its area on the {part}" for part, s in on.items())
    print(f"the map for {name} has {said}")

# %% [markdown]
# ## The image

# %%
fig, axes = panels("One net, two questions: the evidence for each", 6, 13, 5.2)
for k, (first, second, third) in enumerate((axes[:3], axes[3:])):
    for ax, name in (first, ""), (second, "kind"), (third, "mark"):
        ax.set_axis_off()
        column = [test_set.images[marked[i]] for i in range(2 * k, 2 * k + 2)]
        image = np.concatenate(column, axis=1)  # one above the other
        if name:
            found = np.concatenate([maps[name].map[i] for i in range(2 * k, 2 * k + 2)])
            draw(ax, image, found, color_scale(maps[name].map))
        else:
            draw(ax, image)
        ax.set_title(f"evidence for {name}" if name else "the images", fontsize=10, loc="left")
show(out("15_spinenet.png"), "each head looks at what its own question is about", fig)

# %% [markdown]
# ## Questions
#
# 1. SpineNet was told one grade for each disc, and no place. How can its maps find the place all the same?
# 2. One body for two questions: when does that help both, and when does it harm?
# 3. A patient has a grade for one question and none for the other. What does the loss do with such an image?
#
# ## Exercise
#
# Write the map of one head, in `examples/exercises/lesson15.py`, then run `python -m pytest examples/exercises -k lesson15`.
