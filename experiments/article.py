"""The article's recipe: all weights of a ResNet trained with SGD on random crops.

It uses MultiLabelSoftMarginLoss, SGD 0.01 with momentum 0.9, a tenth of the rate every 10 epochs,
25 epochs, batches of 64, RandomResizedCrop(224) and a horizontal flip. Faults of its notebook that
are not repeated: pictures to score are cropped in the centre, not at random; the weights of the
last epoch are kept; nothing is chosen by what is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import get_model
from torchvision.transforms import v2

EPOCHS, BATCH, RATE, MOMENTUM, STEP = 25, 64, 0.01, 0.9, 10

_TO_TENSOR = [
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
]


def _views(side: int) -> tuple[v2.Compose, v2.Compose]:
    """Return what training and scoring make of a picture: a square of `side` pixels."""
    return (
        v2.Compose([v2.RandomResizedCrop(side), v2.RandomHorizontalFlip(), *_TO_TENSOR]),
        v2.Compose([v2.Resize(side * 8 // 7), v2.CenterCrop(side), *_TO_TENSOR]),
    )


class _Examples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, images: Sequence[Image.Image], truth: np.ndarray, view: v2.Compose):
        self._images, self._view = images, view
        self._truth = torch.from_numpy(truth.astype(np.float32))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._view(self._images[i]), self._truth[i]


def train_and_score(
    images: Sequence[Image.Image],
    truth: np.ndarray,
    new: Sequence[Image.Image],
    *,
    seed: int,
    options: Mapping[str, Any],
    device: torch.device,
) -> np.ndarray:
    """Train one network on RGB pictures and their truth (N, tags); return scores of new ones.

    `options` may name `arch` (resnet18), `weights` (imagenet, or none for a random start), `side`
    (224): pixels of the square, of which half take a quarter of the time, and `summed` (false):
    whether tags' losses are added up. The article takes their mean, by which each tag of a network
    moves it the less the more tags there are.
    """
    training, scoring = _views(options.get("side", 224))
    torch.manual_seed(seed)
    imagenet = options.get("weights", "imagenet") == "imagenet"
    network = get_model(
        options.get("arch", "resnet18"), weights="IMAGENET1K_V1" if imagenet else None
    )
    network.fc = nn.Linear(network.fc.in_features, truth.shape[1])
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, STEP, 0.1)
    loss_of = nn.MultiLabelSoftMarginLoss()
    factor = truth.shape[1] if options.get("summed", False) else 1
    network.train()
    for _ in range(EPOCHS):
        for x, y in DataLoader(_Examples(images, truth, training), BATCH, shuffle=True):
            with _half(device):
                logits = network(x.to(device, memory_format=torch.channels_last))
            loss = factor * loss_of(logits.float(), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return _scores(
        network.eval(), _Examples(new, np.zeros((len(new), truth.shape[1])), scoring), device
    )


@torch.inference_mode()
def _scores(network: nn.Module, new: _Examples, device: torch.device) -> np.ndarray:
    scores = []
    for x, _ in DataLoader(new, BATCH):
        scores.append(torch.sigmoid(network(x.to(device))).cpu().numpy())
    return np.concatenate(scores)


def _half(device: torch.device) -> torch.autocast:
    """Train in bfloat16 where the processor has it: the article's networks take hours otherwise."""
    able = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=able)
