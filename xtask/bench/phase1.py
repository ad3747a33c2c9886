"""Phase 1 by the paper's schedule, in straightforward PyTorch: what `cargo xtask bench phase1` compares lana with.

One operation per layer is trained in a pass over the images: the teacher runs once for each batch, every layer's
operation of that pass gets the layer's input and output, their errors are summed, one backward pass gives all gradients, and
AdamW takes a step. The next pass takes the next operation of every layer. NCHW, float32, PyTorch's own threads and
allocator: what one writes first.

Teacher, operations, first weights and images are those that the example `phase1` of the crate `lana` wrote.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Conv(nn.Conv2d):
    """A convolution whose padding may differ from side to side."""

    def __init__(self, node):
        top, left, bottom, right = node["padding"]
        even = (top, left) == (bottom, right)
        super().__init__(
            node["in_channels"], node["out_channels"], node["kernel"], node["stride"],
            (top, left) if even else 0, groups=node["groups"], bias=node["bias"],
        )
        self.sides = None if even else (left, right, top, bottom)

    def forward(self, x):
        return super().forward(x if self.sides is None else F.pad(x, self.sides))


class Subsample(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride, :: self.stride]


class PadChannels(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.sides = (0, 0, 0, 0, before, after)

    def forward(self, x):
        return F.pad(x, self.sides)


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True), "relu6": lambda: nn.ReLU6(inplace=True), "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid, "hard_swish": nn.Hardswish, "hard_sigmoid": nn.Hardsigmoid, "gelu": nn.GELU,
}


def module(node, size):
    """The module of a node whose weight has that size, or none for a sum or a product."""
    match node["op"]:
        case "conv2d":
            return Conv(node)
        case "batch_norm":
            return nn.BatchNorm2d(size[0], eps=node["eps"], momentum=node["momentum"])
        case "activation":
            return ACTIVATIONS[node["kind"]]()
        case "global_average_pool":
            return Pool()
        case "flatten":
            return nn.Flatten()
        case "linear":
            return nn.Linear(size[1], size[0], bias=node["bias"])
        case "subsample":
            return Subsample(node["stride"])
        case "pad_channels":
            return PadChannels(node["before"], node["after"])
        case "add" | "mul":
            return None
        case other:
            sys.exit(f"phase1.py has no `{other}`")


class Graph(nn.Module):
    """A network as lana writes it: a list of nodes, each with the numbers of the values it reads (0 is the input)."""

    def __init__(self, base):
        super().__init__()
        data = json.loads(Path(f"{base}.json").read_text(encoding="utf-8"))
        weights = load_file(f"{base}.safetensors")
        self.nodes, self.layers, self.output = data["nodes"], data["layers"], data["output"]
        self.parts = nn.ModuleList()
        for node in self.nodes:
            weight = weights.get(f"{node['name']}.weight")
            part = module(node, None if weight is None else weight.shape) or nn.Identity()
            own = {k: weights[f"{node['name']}.{k}"] for k in part.state_dict() if k != "num_batches_tracked"}
            part.load_state_dict(own, strict=False)
            self.parts.append(part)
        self.last = {}
        for index, node in enumerate(self.nodes):
            for value in node["inputs"]:
                self.last[value] = index
        self.last[self.output] = len(self.nodes)
        # Where a value is read twice, or is a boundary of a layer, it must not be written over.
        read = [value for node in self.nodes for value in node["inputs"]]
        kept = {value for layer in self.layers for value in (layer["input"], layer["output"])} | {0}
        for node, part in zip(self.nodes, self.parts):
            if getattr(part, "inplace", False) and (read.count(node["inputs"][0]) > 1 or node["inputs"][0] in kept):
                part.inplace = False

    def forward(self, x, taps=()):
        values, tapped = {0: x}, {}
        for index, (node, part) in enumerate(zip(self.nodes, self.parts)):
            for value in node["inputs"]:
                if value in taps:
                    tapped[value] = values[value]
            inputs = [values[value] for value in node["inputs"]]
            for value in set(node["inputs"]):
                if self.last[value] == index:
                    del values[value]
            if node["op"] == "add":
                result = inputs[0] + inputs[1]
            elif node["op"] == "mul":
                result = inputs[0] * inputs[1]
            else:
                result = part(inputs[0])
            del inputs
            values[index + 1] = result
        return values[self.output], tapped


def main(folder, threads, steps, skip, passes):
    torch.set_num_threads(threads)
    folder = Path(folder)
    teacher = Graph(folder / "teacher").eval().requires_grad_(False)
    taps = {value for layer in teacher.layers for value in (layer["input"], layer["output"])}
    images = load_file(folder / "images.safetensors")["images"]
    by_layer = [[] for _ in teacher.layers]
    for path in sorted((folder / "operations").glob("*.json")):
        by_layer[int(path.name[:3])].append(path.with_name(path.name[: -len(".json")]))
    count = max(map(len, by_layer))
    # All passes, or as many, evenly spread: a pass costs what its operations cost, so their mean is what counts.
    chosen = sorted({round(i * (count - 1) / max(passes - 1, 1)) for i in range(min(passes, count))})
    seconds, trained, first, last = 0.0, 0, [], []
    for number in chosen:
        learners = [(i, Graph(ops[number]).train()) for i, ops in enumerate(by_layer) if number < len(ops)]
        decayed = [p for _, m in learners for p in m.parameters() if p.dim() > 1]
        others = [p for _, m in learners for p in m.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-3)
        for step in range(skip + steps):
            begun = time.perf_counter()
            with torch.no_grad():
                _, maps = teacher(images[step % len(images)], taps)
            losses = []
            for index, learner in learners:
                layer = teacher.layers[index]
                target = maps[layer["output"]]
                output, _ = learner(maps[layer["input"]])
                losses.append(F.mse_loss(output, target) / target.square().mean())
            optimizer.zero_grad()
            sum(losses).backward()
            for _, learner in learners:
                nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
            if step == 0:
                first += [loss.item() for loss in losses]
            if step >= skip:
                seconds += time.perf_counter() - begun
                trained += len(learners) * images.shape[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({
        "seconds": seconds, "passes": len(chosen), "all_passes": count, "rate": trained / seconds,
        "first_error": sum(first) / len(first), "peak_mb": peak,
    }))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
