"""A head sees the channels and the colours of what stands out, and little of the ground."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shoetagger.network import pooling
from shoetagger.network.pooling import BINS, _cielab, _contrast, color_histogram

RED, BLUE, WHITE, SAND = (200, 30, 30), (30, 30, 200), (255, 255, 255), (210, 190, 150)


def square_on(ground: tuple[int, int, int], thing: tuple[int, int, int], size: int = 64) -> Tensor:
    """Return one picture (1, size, size, 3) uint8 of a square in the middle of a ground."""
    image = torch.tensor(ground, dtype=torch.uint8).repeat(1, size, size, 1)
    image[:, size // 4 : -size // 4, size // 4 : -size // 4] = torch.tensor(thing).byte()
    return image


def channel_moments(maps: torch.Tensor, *, contrast: bool) -> torch.Tensor:
    """Return the moments of maps (B, channels, height, width)."""
    return pooling.channel_moments(maps.permute(0, 2, 3, 1), contrast=contrast)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("images", [1, 4, 11])
def test_mean_and_deviation_of_each_channel(images: int, layout: torch.memory_format) -> None:
    x = torch.randn(images, 6, 5, 7).mul(3).add(10).to(memory_format=layout).requires_grad_()
    mean, deviation = x.mean((2, 3)), x.std((2, 3), correction=0)
    expected = torch.cat([mean, deviation], dim=1)
    torch.testing.assert_close(channel_moments(x, contrast=False), expected)


@pytest.mark.parametrize("contrast", [False, True])
def test_a_channel_that_is_silent_everywhere_can_still_learn(contrast: bool) -> None:
    silent = torch.zeros(2, 6, 5, 7, requires_grad=True)
    channel_moments(silent, contrast=contrast).sum().backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


def test_by_contrast_the_ground_hardly_counts() -> None:
    thing = torch.randn(8, generator=torch.manual_seed(1)) + 5
    seen = []
    for ground in (torch.zeros(8), torch.full((8,), 2.0)):
        x = ground[None, :, None, None].repeat(1, 1, 14, 14)
        x[:, :, 4:9, 3:10] = thing[None, :, None, None]
        seen.append(channel_moments(x, contrast=True)[0, :8])
        assert (channel_moments(x, contrast=False)[0, :8] - thing).abs().max() > 1
    for mean in seen:
        torch.testing.assert_close(mean, thing, atol=0.1, rtol=0.02)


@pytest.mark.gpu
def test_on_a_gpu_a_head_sees_what_it_sees_on_a_cpu() -> None:
    draws = torch.manual_seed(1)
    x = torch.randn(70, 32, 14, 14, generator=draws) + torch.randn(70, 32, 1, 1, generator=draws)
    for contrast in (False, True):
        here, there = (channel_moments(x.to(d), contrast=contrast).cpu() for d in ("cpu", "cuda"))
        torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)
    images = torch.cat([square_on(WHITE, RED), square_on(SAND, BLUE)] * 35)
    torch.testing.assert_close(color_histogram(images.cuda()).cpu(), color_histogram(images))


def test_a_border_of_two_kinds_is_ground_on_all_sides() -> None:
    # As of a wide picture that was padded to a square: white above and below, its ground beside.
    padded = square_on(SAND, RED)
    padded[:, :16] = padded[:, -16:] = torch.tensor(WHITE).byte()
    weights = _contrast(padded.float()).view(64, 64)
    assert weights[16:-16, 16:-16].sum() > 0.9


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_picture_of_one_colour_and_a_map_of_one_place_count_evenly(device: str) -> None:
    torch.testing.assert_close(
        _contrast(torch.full((2, 6, 5, 3), 7.0, device=device)).cpu(),
        torch.full((2, 1, 30), 1 / 30),
    )
    many = torch.randn(64).expand(2, 14, 14, 64).contiguous()  # channels, whose means round
    torch.testing.assert_close(_contrast(many.to(device)).cpu(), torch.full((2, 1, 196), 1 / 196))
    one = torch.randn(3, 4, 1, 1)
    torch.testing.assert_close(channel_moments(one, contrast=True)[:, :4], one.flatten(1))


def test_colours_are_those_of_cielab() -> None:
    # Of the sRGB primaries and a grey, as tables have them.
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    known = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [53.39, 0, 0]]
    torch.testing.assert_close(_cielab(rgb), torch.tensor(known), atol=0.1, rtol=0.01)


def test_a_histogram_shares_out_what_stands_out() -> None:
    found = color_histogram(torch.cat([square_on(WHITE, RED), square_on(SAND, RED)]))
    assert found.shape == (2, BINS)
    torch.testing.assert_close(found.square().sum(1), torch.ones(2))
    red = color_histogram(torch.tensor(RED, dtype=torch.uint8).repeat(1, 64, 64, 1))
    blue = color_histogram(torch.tensor(BLUE, dtype=torch.uint8).repeat(1, 64, 64, 1))
    for seen in found:
        assert (seen - red[0]).norm() < 0.4 < 1.0 < (seen - blue[0]).norm()


def test_half_precision_around_it_changes_nothing() -> None:
    x, images = torch.randn(3, 16, 14, 14), square_on(WHITE, RED)
    plain = channel_moments(x, contrast=True), color_histogram(images)
    with torch.autocast("cpu", torch.bfloat16):
        around = channel_moments(x, contrast=True), color_histogram(images)
    for values, others in zip(plain, around, strict=True):
        assert torch.equal(values, others)


def test_no_picture_has_no_colours() -> None:
    assert color_histogram(torch.empty(0, 32, 32, 3, dtype=torch.uint8)).shape == (0, BINS)


@pytest.mark.parametrize("size", [1, 3, 32, 50])
def test_small_pictures_have_colours_too(size: int) -> None:
    images = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8)
    found = color_histogram(images)
    assert found.shape == (5, BINS)
    assert found.isfinite().all()
    alone = torch.cat([color_histogram(image[None]) for image in images])
    torch.testing.assert_close(found, alone)
