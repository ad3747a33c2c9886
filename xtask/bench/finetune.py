"""A fine-tuning step in straightforward PyTorch: what `cargo xtask bench finetune` compares lana with.

The teacher in evaluation mode without gradients, the student's forward, cross-entropy + T^2 KL, backward, gradients clipped, SGD with
Nesterov momentum. float32, channels_last for both networks and the images, PyTorch's own threads and allocator.

Teacher, student and images are those that the example `finetune` of the crate `lana-torch` wrote.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from phase1 import Graph
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


def main(folder, threads, steps, skip):
    torch.set_num_threads(threads)
    folder, last = Path(folder), torch.channels_last
    teacher = Graph(folder / "teacher").to(memory_format=last).eval().requires_grad_(False)
    student = Graph(folder / "student").to(memory_format=last).train()
    images = load_file(folder / "images.safetensors")["images"]
    labels = torch.arange(images.shape[1]) % 10
    decayed = [p for p in student.parameters() if p.dim() > 1]
    others = [p for p in student.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)
    losses = []
    begun = time.perf_counter()
    for step in range(skip + steps):
        if step == skip:
            begun = time.perf_counter()
        x = images[step % len(images)].contiguous(memory_format=last)
        with torch.inference_mode():
            theirs, _ = teacher(x)
        logits, _ = student(x)
        kl = F.kl_div(F.log_softmax(logits / 2, -1), F.log_softmax(theirs.clone() / 2, -1), reduction="batchmean", log_target=True)
        loss = F.cross_entropy(logits, labels) + 4 * kl
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = steps * images.shape[1] / seconds
    print(json.dumps({"rate": rate, "first_loss": losses[0], "last_loss": losses[-1], "peak_mb": peak}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
