"""timm's and PIL's side of `cargo xtask parity --data`: writes images, and what becomes of them, into a folder.

    timm_data.py FOLDER

`cases.json` lists the cases: the file they start from, what is done with it, and the file of bytes (rows, columns, red green
blue) that has to come out. The example `parity` of lana-data does the same things and compares.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import NAME_TO_OP
from timm.data.transforms import str_to_interp_mode, str_to_pil_interp
from torchvision.transforms import functional as F

SIZES = [(500, 375), (375, 500), (333, 501), (97, 131), (1023, 767), (224, 224), (231, 640), (61, 45), (1600, 301)]
EVALUATIONS = [
    (224, 0.875, "bicubic"), (224, 0.875, "bilinear"), (97, 1.0, "bicubic"), (288, 0.95, "bicubic"), (224, 0.8, "bilinear"),
    (192, 0.882, "bicubic"),
]
OPERATIONS = [
    ("AutoContrast", []), ("Equalize", []), ("Invert", []),
    ("Rotate", [-27.3, 5.0, 30.0]), ("Posterize", [1, 4, 8]), ("Solarize", [0, 100, 256]), ("SolarizeAdd", [0, 55, 110]),
    ("Color", [0.1, 0.37, 1.0, 1.9]), ("Contrast", [0.1, 0.37, 1.9]), ("Brightness", [0.1, 0.37, 1.9]),
    ("Sharpness", [0.1, 0.37, 1.9]), ("ShearX", [-0.3, 0.11]), ("ShearY", [-0.3, 0.11]),
    ("TranslateXRel", [-0.45, 0.123]), ("TranslateYRel", [-0.45, 0.123]), ("Hue", [-0.5, -0.1, 0.2]),
]
FILL = (124, 116, 104)


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Something like a photograph: soft colours, hard edges of every direction, fine texture, a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for _ in range(12):
        middle = random.uniform(0, 1, 2) * (width, height)
        radius = random.uniform(0.05, 0.5) * max(width, height)
        blob = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * radius**2))
        image += blob[..., None] * random.uniform(-90, 160, 3)
    for _ in range(6):
        angle, offset = random.uniform(0, np.pi), random.uniform(0.2, 0.8)
        side = (x - offset * width) * np.cos(angle) + (y - offset * height) * np.sin(angle)
        image += (side > 0)[..., None] * random.uniform(-80, 80, 3)
    image += 12 * np.sin(x * random.uniform(0.3, 1.5) + y * random.uniform(0.3, 1.5))[..., None]
    image += random.normal(0, 3, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def main(folder: Path) -> None:
    cases = []

    def case(kind: str, file: str, result: Image.Image, **options) -> None:
        name = f"{len(cases):04}.bytes"
        (folder / name).write_bytes(np.asarray(result.convert("RGB")).tobytes())
        cases.append({"kind": kind, "file": file, "expected": name, **options})

    for number, (width, height) in enumerate(SIZES):
        image = picture(width, height, number)
        files = {}
        for name, options in [("png", {}), ("420.jpg", {"quality": 90}), ("444.jpg", {"quality": 95, "subsampling": 0}),
                              ("422.jpg", {"quality": 85, "subsampling": 1}), ("progressive.jpg", {"quality": 75, "progressive": True})]:
            file = f"{number}.{name}"
            image.save(folder / file, **options)
            files[file] = Image.open(folder / file).convert("RGB")
        for file, decoded in files.items():
            jpeg = file.endswith(".jpg")
            subsampling = file.split(".")[1] if jpeg else None
            if jpeg:
                case(f"decode JPEG {subsampling}", file, decoded, what="decode")
            for size, crop, interpolation in EVALUATIONS:
                transform = create_transform(size, is_training=False, crop_pct=crop, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1))
                result = Image.fromarray((transform(decoded).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
                kind = f"evaluate JPEG {subsampling}" if jpeg else f"evaluate PNG, {interpolation}"
                case(kind, file, result, what="evaluate", size=size, crop=crop, interpolation=interpolation)
        png = f"{number}.png"
        random = np.random.default_rng(number)
        for turn in range(6):
            wide, high = int(random.integers(1, width + 1)), int(random.integers(1, height + 1))
            left, top = int(random.integers(0, width - wide + 1)), int(random.integers(0, height - high + 1))
            interpolation = ["bilinear", "bicubic"][turn % 2]
            result = F.resized_crop(image, top, left, high, wide, [160, 160], str_to_interp_mode(interpolation))
            case(f"resized crop, {interpolation}", png, result, what="crop", area=[left, top, wide, high], size=160, interpolation=interpolation)
        if number in (0, 3, 7):
            for name, values in OPERATIONS:
                for value in values or [None]:
                    for interpolation in ["bilinear", "bicubic"]:
                        if name == "Hue":
                            result, value_here = F.adjust_hue(image, value), int(np.array(value * 255).astype(np.int32)) % 256
                        else:
                            arguments = [] if value is None else [value]
                            result = NAME_TO_OP[name](image, *arguments, fillcolor=FILL, resample=str_to_pil_interp(interpolation))
                            value_here = value
                        moves = name.startswith(("Rotate", "Shear", "Translate"))
                        kind = f"{name}, {interpolation}" if moves else name
                        if moves or interpolation == "bilinear":
                            case(kind, png, result, what="operation", operation=name, value=value_here or 0,
                                 fill=FILL, interpolation=interpolation)
    (folder / "cases.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
