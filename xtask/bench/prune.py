"""Global channel pruning by the well-known library, as users would do it: what `cargo xtask bench accuracy` compares students with.

Torch-Pruning (DepGraph, CVPR 2023) finds which channels must go together and takes away those whose weights have the smallest L2
norm relative to the mean of their group (its `GroupMagnitudeImportance` as it comes), all layers compared with each other, until the given
share of the channels that may go is gone. Channels stay in eights, since ONNX Runtime works on blocks of so many: fewer take as
long or longer. It goes in steps, because the library leaves a layer whole that it would have to empty. The classifier's outputs stay; so do channels on shortcuts that are padded with zeros
(ResNets for CIFAR), which the library does not follow: of these networks only the inner channels of blocks go.

    python prune.py FOLDER SHARE OUT.onnx

FOLDER holds graph.json, weights.safetensors and network.py, the text of the graph. The ONNX file keeps its BatchNorms, so
that it can be trained.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
import torch_pruning
from torch import nn

# Steps in which a network is pruned.
STEPS = 25


def main(folder, share, out):
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("network", Path(folder) / "network.py")
    network = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(network)
    model = network.load(Path(folder) / "weights.safetensors")
    images = torch.zeros(1, *json.loads((Path(folder) / "graph.json").read_text())["input"])
    fixed = {m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model(images).shape[1]}
    dependencies = torch_pruning.DependencyGraph().build_dependency(model, images, ignored_params=[])
    for group in dependencies.get_all_groups(ignored_layers=list(fixed), root_module_types=[nn.Conv2d, nn.Linear]):
        names = [str(dependency.target) for dependency, _ in group]
        if any("ConstantPad" in name for name in names):
            fixed.update(d.target.module for d, _ in group if dependencies.is_out_channel_pruning_fn(d.handler))
    pruner = torch_pruning.pruner.BasePruner(
        model,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=share,
        round_to=8,
        iterative_steps=STEPS,
        ignored_layers=list(fixed),
    )
    for _ in range(STEPS):
        pruner.step()
    torch.onnx.export(
        model,
        (images,),
        out,
        dynamo=False,
        opset_version=17,
        # Else BatchNorms are folded into the convolutions.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
