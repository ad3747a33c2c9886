"""torchvision's side of `cargo xtask bench data`.

    data.py make FOLDER IMAGES     makes JPEGs of about 500 x 375 pixels in the folders of ten classes
    data.py time FOLDER            prints what ImageFolder and a DataLoader with one worker do with them
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).parent.parent / "parity"))


def make(folder: Path, images: int) -> None:
    from timm_data import picture

    for number in range(images):
        name = folder / f"class{number % 10}" / f"{number:05}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        # Drawing takes longer than all else: a hundred pictures, each of many sizes.
        width, height = 480 + number % 41, 360 + number // 7 % 31
        if number < 100:
            picture(width, height, number).save(name, quality=90)
        else:
            name.write_bytes((folder / f"class{number % 10}" / f"{number % 100:05}.jpg").read_bytes())
    (folder / "done").touch()


def measure(folder: Path) -> None:
    torch.set_num_threads(1)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    data = datasets.ImageFolder(str(folder), transform)
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, num_workers=1, persistent_workers=True)
    next(iter(loader))
    start, images = time.perf_counter(), 0
    for batch, _ in loader:
        images += len(batch)
    rate = images / (time.perf_counter() - start)
    del loader
    own, worker = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"rate": rate, "peak_mb": (own + worker) / 1024}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        measure(Path(sys.argv[2]))
