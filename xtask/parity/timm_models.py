"""timm's side of `cargo xtask parity`: makes models with random weights and writes down what they compute.

Reads one request a line from stdin, its words between tabs, and answers each with a line on stdout: `ok`, `no`, or
`error` and why.

    known MODEL                                    whether timm has it
    make MODEL RESOLUTION FOLDER LAYER,LAYER,…     writes weights.safetensors, eval.safetensors, train.safetensors
    drift MODEL MODE FOLDER LAYER,LAYER,…          after `ok`, how far timm is from itself: the largest error of what
                                                   MODE.safetensors holds, when it is computed channels-last
    load MODEL FOLDER                              whether FOLDER/written.safetensors loads into a new model and is
                                                   what weights.safetensors was, bit for bit

eval and train hold `input`, `stem` (what the first layer is given), what each layer gives under its name, and `logits`;
train also the running statistics after that one forward pass, as `after:NAME`; eval what the network and each layer cost,
as `params`, `params:LAYER`, `macs`, `macs:LAYER`.
"""

import logging
import sys
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

logging.disable(logging.WARNING)

import timm  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

# Training statistics are those of the batch: with a few images of 97 pixels the last stage still has 128 numbers to a
# channel, so that rounding stays rounding.
TRAIN_IMAGES = 8
EVAL_IMAGES = 2


def create(name: str) -> nn.Module:
    model = timm.create_model(name, pretrained=False)
    # Nothing random in the forward pass.
    for module in model.modules():
        for rate in ("drop_rate", "drop_prob", "p"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return model


@torch.no_grad()
def randomise(model: nn.Module, images: torch.Tensor, layers: list[str]) -> None:
    """Gives every parameter a value that matters, so that none can be swapped, dropped or defaulted unnoticed.

    Running statistics are near those of what really comes in, as in a trained network, or else values would grow or vanish
    from layer to layer; but not equal to them, nor to the batch's.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0.0, 0.2)

    def calibrate(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        deviation = variance.sqrt()
        norm.running_mean.copy_(mean + 0.3 * deviation * torch.randn_like(mean))
        norm.running_var.copy_(variance * torch.empty_like(mean).uniform_(0.6, 1.5))

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
    # Blocks of trained networks add little to their shortcut, and less the deeper the network is. Where they add much, deep
    # networks are chaotic, and rounding grows until nothing can be compared.
    share = min(1.0, (16 / max(1, len(layers))) ** 0.5)
    for layer in layers:
        inside = model.get_submodule(layer).named_modules()
        ends = [module for name, module in inside if module in norms and "downsample" not in name]
        ends[-1].weight.uniform_(0.2 * share, 0.5 * share)
    handles = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    model.eval()(images)
    for handle in handles:
        handle.remove()


@torch.no_grad()
def forward(model: nn.Module, images: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    """Runs the model; gives its input, what goes into the first layer, what comes out of each, and the logits."""
    values = {"input": images}
    handles = []

    def before(name: str):
        def hook(_module, inputs):
            if not layers or name == layers[0]:
                values["stem"] = inputs[0].clone()

        return hook

    def after(name: str):
        def hook(_module, _inputs, output):
            values[name] = output.clone()

        return hook

    for name in layers:
        module = model.get_submodule(name)
        handles += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    values["logits"] = model(images)
    for handle in handles:
        handle.remove()
    return values


@torch.no_grad()
def costs(model: nn.Module, image: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    """Trained parameters, and multiply-accumulates for one image: torch's count, and as in fvcore, whose counts timm publishes,
    two for each element that a BatchNorm gives."""
    norms: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: norms.update({name: 2 * output.numel()}))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with FlopCounterMode(display=False) as counter:
        model(image)
    for hook in hooks:
        hook.remove()
    counts = counter.get_flop_counts()
    root = type(model).__name__

    def normalised(layer: str) -> int:
        return sum(count for name, count in norms.items() if name.startswith(layer))

    def number(value: float) -> torch.Tensor:
        return torch.tensor([value], dtype=torch.float64)

    values = {"macs": number(counter.get_total_flops() / 2 + normalised(""))}
    values["params"] = number(sum(p.numel() for p in model.parameters()))
    for name in layers:
        convolved = sum(counts.get(f"{root}.{name}", {}).values()) / 2
        values[f"macs:{name}"] = number(convolved + normalised(f"{name}."))
        values[f"params:{name}"] = number(sum(p.numel() for p in model.get_submodule(name).parameters()))
    return values


def save(values: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.contiguous().clone() for name, value in values.items()}, path)


def make(name: str, resolution: str, folder: str, layers: str) -> str:
    torch.manual_seed(zlib.crc32(f"{name} {resolution}".encode()))
    names = layers.split(",") if layers else []
    model = create(name)
    images = torch.randn(TRAIN_IMAGES, 3, int(resolution), int(resolution))
    randomise(model, torch.randn_like(images), names)
    save(model.state_dict(), Path(folder) / "weights.safetensors")
    model.eval()
    values = forward(model, images[:EVAL_IMAGES], names)
    save(values | costs(model, images[:1], names), Path(folder) / "eval.safetensors")
    save(train(model, images, names), Path(folder) / "train.safetensors")
    return "ok"


def drift(name: str, mode: str, folder: str, layers: str) -> str:
    model = create(name)
    model.load_state_dict(load_file(Path(folder) / "weights.safetensors"), strict=True)
    values = load_file(Path(folder) / f"{mode}.safetensors")
    layout = torch.channels_last
    images = values["input"].to(memory_format=layout)
    model = model.to(memory_format=layout)
    names = layers.split(",") if layers else []
    others = train(model, images, names) if mode == "train" else forward(model.eval(), images, names)
    errors = ((others[key] - values[key]).abs().max() / values[key].abs().max() for key in others)
    return f"ok {float(max(errors)):e}"


def train(model: nn.Module, images: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    values = forward(model.train(), images, layers)
    return values | {f"after:{key}": value for key, value in model.state_dict().items() if ".running_" in key}


def load(name: str, folder: str) -> str:
    before = load_file(Path(folder) / "weights.safetensors")
    written = load_file(Path(folder) / "written.safetensors")
    model = create(name)
    # Counters are no weights: PyTorch makes them, others leave them out.
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(written | counters, strict=True)
    for key, value in model.state_dict().items():
        if key not in counters and not torch.equal(value, before[key]):
            return f"error {key} came back with other values"
    return "ok"


def known(name: str) -> str:
    return "ok" if timm.is_model(name) else "no"


def main() -> None:
    requests = {"known": known, "make": make, "drift": drift, "load": load}
    for line in sys.stdin:
        request, *arguments = line.rstrip("\n").split("\t")
        try:
            answer = requests[request](*arguments)
        except Exception as error:  # told to the other side, which goes on with the next model
            answer = f"error {type(error).__name__}: {error}"
        print(" ".join(answer.split()), flush=True)


if __name__ == "__main__":
    main()
