"""Python's side of `cargo xtask parity --students`.

    students.py prepare FOLDER NAME
    students.py compare FOLDER NAME

FOLDER holds `student.py` and `weights.safetensors`, as `lana export --format pytorch` writes them. `prepare` gives the weights
values with which feature maps keep their size, as those of a trained network do. `compare` runs the module beside
`student.onnx`, the same network (or the file that it was read from) in ONNX Runtime, and, if timm has a network of that name, beside timm's with the same weights: in
evaluation mode and, timm's, in training mode, where the running statistics are compared too. It prints a line; the exit status is
1 if something differs.
"""

import importlib.util
import sys
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

# Largest difference of an output, relative to the largest of them.
LIMIT = 1e-5
# In 64 bits nothing but the network itself makes a difference.
LIMIT_64 = 1e-9
# How many times as far as from itself in 64 bits a network may be, where deep ones amplify rounding.
ROUNDING = 4.0


def module(folder: Path):
    spec = importlib.util.spec_from_file_location("student", folder / "student.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def images(folder: Path, name: str, count: int) -> torch.Tensor:
    """Random images of the size that the text names."""
    text = (folder / "student.py").read_text()
    size = text.split("torch.randn(1, ")[1].split(")")[0]
    torch.manual_seed(zlib.crc32(name.encode()))
    return torch.randn(count, *map(int, size.split(", ")))


@torch.no_grad()
def prepare(folder: Path, name: str) -> bool:
    model = module(folder).load()
    batch = images(folder, name, 8)

    def calibrate(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        deviation = variance.sqrt()
        norm.running_mean.copy_(mean + 0.3 * deviation * torch.randn_like(mean))
        norm.running_var.copy_((variance + 1e-3) * torch.empty_like(mean).uniform_(0.6, 1.5))

    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            parameter.normal_(0.0, 0.2)
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
            part.weight.uniform_(0.5, 1.5)
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_pre_hook(calibrate)
    model(batch)
    # Counters are PyTorch's own; lana does not write them.
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    written = load_file(folder / "weights.safetensors")
    assert state.keys() == written.keys(), "the module's parameters are not those of the file"
    save_file(state, folder / "weights.safetensors")
    return True


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert theirs.isfinite().all() and theirs.abs().max() > 0, "outputs are no numbers"
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.named_buffers() if ".running_" in key}


def reference(folder: Path, name: str) -> nn.Module | None:
    """timm's network of that name, if it has one."""
    import timm

    if not timm.is_model(name):
        return None
    model = timm.create_model(name, pretrained=False, drop_rate=0.0)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(load_file(folder / "weights.safetensors") | counters)
    return model.double().eval()


def compare(folder: Path, name: str) -> bool:
    import onnxruntime

    made = module(folder)
    model = made.load()
    batch = images(folder, name, 8)
    options = onnxruntime.SessionOptions()
    # As written: fusing moves the rounding about.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(folder / "student.onnx", options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    # Files of TensorFlow take images by rows, columns, channels.
    by_rows = given.shape[1:] != list(batch.shape[1:])
    images_of = batch[:2].permute(0, 2, 3, 1).contiguous() if by_rows else batch[:2]
    with torch.no_grad():
        onnx = torch.from_numpy(session.run(None, {given.name: images_of.numpy()})[0])
        ours = model(batch[:2])
        again = model(batch[:2])
        exact = made.load().double()(batch[:2].double())
    assert torch.equal(ours, again), "evaluation is random"
    evaluated = difference(ours, onnx)
    limit = max(LIMIT, ROUNDING * difference(ours, exact))
    problems = [] if evaluated <= limit else [f"differs from ONNX Runtime (limit {limit:.0e})"]

    # Training: gradients for everything that is trained, statistics that move.
    model.train()
    before = statistics(model)
    model(batch).square().mean().backward()
    still = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()]
    still += [key for key, value in statistics(model).items() if torch.equal(value, before[key]) or not value.isfinite().all()]
    if still:
        problems.append(f"does not train: {', '.join(still[:5])}")
    drops = [part for part in model.modules() if type(part).__name__ in ("DropPath", "Dropout")]
    with torch.no_grad():
        if bool(drops) == torch.equal(model(batch), model(batch)):
            problems.append("drops at the wrong time")

    trained = None
    timm = reference(folder, name)
    if timm is not None:
        ours = made.load().double()
        with torch.no_grad():
            worst = difference(ours(batch.double()), timm(batch.double()))
            trained = difference(ours.train()(batch.double()), timm.train()(batch.double()))
        theirs = statistics(timm)
        trained = max([trained, *(difference(value, theirs[key]) for key, value in statistics(ours).items())])
        if max(worst, trained) > LIMIT_64:
            problems.append(f"differs from timm by {worst:.0e}, in training by {trained:.0e}")
    count = sum(parameter.numel() for parameter in model.parameters())
    column = "–      " if trained is None else f"{trained:.1e}"
    print(f"{name:32} {count:10}  {evaluated:.1e}  {column}  {'; '.join(problems) or 'ok'}", flush=True)
    return not problems


if __name__ == "__main__":
    step, folder, name = sys.argv[1:]
    sys.exit(0 if {"prepare": prepare, "compare": compare}[step](Path(folder), name) else 1)
