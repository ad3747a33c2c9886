"""PyTorch's and ONNX Runtime's side of `cargo xtask parity --onnx`.

    onnx_models.py list
    onnx_models.py export FOLDER NAME EXPORTER
    onnx_models.py compare FOLDER NAME EXPORTER

`list` prints the name and the exporters of each network. `export` writes FOLDER/NAME.EXPORTER.onnx: the network NAME of torchvision or
timm (`timm/…`) with random weights and statistics, by one of PyTorch's exporters (`script`, the older one; `dynamo`, which goes by
torch.export), or one of those in `onnx_tensorflow.py`. `compare` runs that file and FOLDER/NAME.EXPORTER.lana.onnx, what lana made of
it, in ONNX Runtime on random images, and prints the largest difference relative to the largest output.
"""

import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import onnx_tensorflow

EXPORTERS = ("script", "dynamo")
# Networks by the smallest image that they are meant for, or nearly so: what differs with size is shapes alone.
NETWORKS = {
    "resnet18": 64,
    "resnet50": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "mobilenet_v3_large": 64,
    "efficientnet_b0": 64,
    "squeezenet1_1": 64,
    "densenet121": 64,
    "googlenet": 64,
    "regnet_y_400mf": 64,
    "shufflenet_v2_x1_0": 64,
    "convnext_tiny": 64,
    "vit_b_16": 224,
    "timm/efficientnet_b0": 64,
    "timm/tf_efficientnet_b0": 64,
    "timm/tf_efficientnetv2_b0": 64,
    "timm/mobilenetv2_100": 64,
    "timm/mobilenetv3_small_050": 64,
    "timm/resnet26d": 64,
    "timm/resnest14d": 64,
    "timm/regnetz_b16": 64,
    "timm/convnextv2_atto": 64,
    "timm/deit_tiny_patch16_224": 224,
    "timm/swin_tiny_patch4_window7_224": 224,
    "timm/mixer_s32_224": 224,
    "timm/repvgg_a0": 64,
    "timm/ghostnet_100": 64,
    "timm/mobileone_s0": 64,
    "timm/eca_resnet33ts": 64,
    "timm/hrnet_w18_small": 64,
    "timm/res2net50_26w_4s": 64,
    "timm/poolformer_s12": 224,
    "timm/mobilevit_xxs": 256,
    "timm/levit_128s": 224,
    "timm/cspdarknet53": 64,
    "timm/inception_v4": 96,
    "timm/resnetv2_50x1_bit": 64,
    "timm/nf_regnet_b1": 64,
    "timm/dla34": 64,
    "timm/vgg11_bn": 224,
    "timm/edgenext_xx_small": 64,
}


def network(name: str):
    """The network with weights of about the size that training leaves, and statistics other than 0 and 1."""
    import torch

    torch.manual_seed(zlib.crc32(name.encode()))
    if name.startswith("timm/"):
        import timm

        model = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    else:
        import torchvision

        extra = {"init_weights": True} if name == "googlenet" else {}
        model = torchvision.models.get_model(name, weights=None, **extra)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.1)
            elif isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
        for key, parameter in model.named_parameters():
            # What begins at zero, or nearly so, would show nothing.
            if parameter.abs().max() < 1e-3:
                parameter.normal_(0, 0.1)
    return model.eval()


def path(folder: str, name: str, exporter: str, suffix: str = "") -> Path:
    return Path(folder) / f"{name.replace('/', '.')}.{exporter}{suffix}.onnx"


def export(folder: str, name: str, exporter: str) -> None:
    if name in onnx_tensorflow.MODELS:
        import onnx

        _, size, model = onnx_tensorflow.MODELS[name]
        onnx.save(model(size), path(folder, name, exporter))
        return
    import torch

    warnings.filterwarnings("ignore")
    model, size, file = network(name), NETWORKS[name], path(folder, name, exporter)
    image = torch.randn(2, 3, size, size)
    if exporter == "dynamo":
        batch = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(model, (image,), file, dynamo=True, dynamic_shapes=batch, verbose=False, report=False)
    else:
        torch.onnx.export(
            model, (image,), file, dynamo=False, input_names=["image"], dynamic_axes={"image": {0: "batch"}}, opset_version=17
        )


def compare(folder: str, name: str, exporter: str) -> None:
    import onnxruntime

    random = np.random.default_rng(zlib.crc32(name.encode()))
    worst = 0.0
    theirs, ours = [
        onnxruntime.InferenceSession(path(folder, name, exporter, suffix), providers=["CPUExecutionProvider"])
        for suffix in ("", ".lana")
    ]
    batch, *image = theirs.get_inputs()[0].shape
    # Files of TensorFlow take images by rows, columns, channels.
    by_rows = image[-1] == 3
    size = image[0] if by_rows else image[1]
    for count in (batch,) if isinstance(batch, int) else (1, 3):
        images = random.standard_normal((count, 3, size, size)).astype(np.float32)
        given = images.transpose(0, 2, 3, 1) if by_rows else images
        (wanted,), (found,) = [s.run(None, {s.get_inputs()[0].name: x}) for s, x in ((theirs, given), (ours, images))]
        assert wanted.shape == found.shape, (wanted.shape, found.shape)
        assert np.isfinite(wanted).all() and np.abs(wanted).max() > 0, "the network's outputs are no numbers"
        worst = max(worst, float(np.abs(wanted - found).max() / np.abs(wanted).max()))
    print(f"{worst:.1e}")


def main(command: str, *rest: str) -> None:
    match command:
        case "list":
            for name in NETWORKS:
                print(name, *EXPORTERS)
            for name, (exporter, *_) in onnx_tensorflow.MODELS.items():
                print(name, exporter)
        case "export":
            export(*rest)
        case "compare":
            compare(*rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
