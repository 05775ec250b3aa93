"""Writes backbones.safetensors, which tests/it/backbones.rs holds the backbones against.

    python tests/goldens/backbones.py        # needs torch, numpy, safetensors

The networks are defined here in PyTorch (f32, one thread), batch normalisation not folded, from the papers' tables.
Weights and the picture come from an integer hash that the test knows too, so they are not stored; features are stored as
every n-th element. Descriptors follow PatchCore's preprocessing: unfold, adaptive average pools, bilinear resize.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SIDE = 64
STORED = 1500


def hashed(name, index):
    """32 hash bits for each element of `index` (uint64 array), different for each name."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    x = (index.astype(np.uint64) + np.uint64(seed)) & np.uint64(0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return x ^ (x >> np.uint64(16))


def uniform(name, shape, low, high):
    unit = (hashed(name, np.arange(np.prod(shape))) >> np.uint64(8)).astype(np.float32) / np.float32(1 << 24)
    return torch.from_numpy(np.float32(low) + unit * np.float32(high - low)).reshape(shape)


def weight(name, shape):
    bound = float(np.float32(np.sqrt(6 / np.prod(shape[1:]))))
    return uniform(name, shape, -bound, bound)


def norm(x, name, eps):
    part = lambda p, low, high: uniform(f"{name}.{p}", (x.shape[1],), low, high)
    return F.batch_norm(x, part("running_mean", -0.2, 0.2), part("running_var", 0.6, 1.6), part("weight", 0.4, 1.0),
                        part("bias", -0.2, 0.4), training=False, eps=eps)


def picture():
    """RGB8 noise over a gradient, [1, 3, SIDE, SIDE], 0 to 255."""
    index = np.arange(SIDE * SIDE * 3)
    y, x = index // 3 // SIDE, index // 3 % SIDE
    rgb = ((hashed("picture", index) >> np.uint64(25)).astype(np.int64) + x + y).astype(np.float32)
    return torch.from_numpy(rgb.reshape(SIDE, SIDE, 3)).permute(2, 0, 1)[None].contiguous()


def same(x, kernel, stride):
    zeros = lambda n: max((-(-n // stride) - 1) * stride + kernel - n, 0)
    v, h = zeros(x.shape[2]), zeros(x.shape[3])
    return F.pad(x, (h // 2, h - h // 2, v // 2, v - v // 2))


def lite0(rgb):
    def conv(x, conv_name, norm_name, outputs, kernel, stride=1, depthwise=False, act=True):
        groups = x.shape[1] if depthwise else 1
        w = weight(conv_name + ".weight", (outputs, x.shape[1] // groups, kernel, kernel))
        x = norm(F.conv2d(same(x, kernel, stride), w, None, stride, 0, 1, groups), norm_name, 1e-3)
        return F.relu6(x) if act else x

    x = conv((rgb - 127) / 128, "_conv_stem", "_bn0", 32, 3, 2)
    stages = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)]
    outputs = []
    for repeats, kernel, first, expand, channels in stages:
        for repeat in range(repeats):
            n, stride, y = f"_blocks.{len(outputs)}.", first if repeat == 0 else 1, x
            if expand > 1:
                y = conv(y, n + "_expand_conv", n + "_bn0", x.shape[1] * expand, 1)
            y = conv(y, n + "_depthwise_conv", n + "_bn1", y.shape[1], kernel, stride, depthwise=True)
            y = conv(y, n + "_project_conv", n + "_bn2", channels, 1, act=False)
            x = x + y if stride == 1 and x.shape[1] == channels else y
            outputs.append(x)
    return outputs[4], outputs[10]


def resnet(rgb, bottleneck, blocks, width):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def conv(x, conv_name, norm_name, outputs, kernel, stride=1):
        w = weight(conv_name + ".weight", (outputs, x.shape[1], kernel, kernel))
        return norm(F.conv2d(x, w, None, stride, kernel // 2), norm_name, 1e-5)

    x = F.max_pool2d(F.relu(conv((rgb / 255 - mean) / std, "conv1", "bn1", 64, 7, 2)), 3, 2, 1)
    layers = []
    for layer, count in enumerate(blocks, 1):
        inner, outer = width << (layer - 1), (64 << (layer - 1)) * (4 if bottleneck else 1)
        for block in range(count):
            n, stride, y = f"layer{layer}.{block}.", 2 if block == 0 and layer > 1 else 1, x
            plan = [(inner, 1, 1), (inner, 3, stride), (outer, 1, 1)] if bottleneck else [(outer, 3, stride), (outer, 3, 1)]
            for i, (channels, kernel, s) in enumerate(plan, 1):
                y = conv(y, f"{n}conv{i}", f"{n}bn{i}", channels, kernel, s)
                y = F.relu(y) if i < len(plan) else y
            if stride > 1 or x.shape[1] != outer:
                x = conv(x, n + "downsample.0", n + "downsample.1", outer, 1, stride)
            x = F.relu(x + y)
        layers.append(x)
    return layers[1], layers[2]


def describe(first, second, features):
    def neighbourhoods(x):
        b, c, h, w = x.shape
        return F.unfold(x, 3, padding=1).transpose(1, 2).reshape(b, h, w, c * 9)

    def pool(x, n):
        return F.adaptive_avg_pool1d(x.flatten(0, 2)[:, None], n)[:, 0].view(*x.shape[:3], n)

    first, second = neighbourhoods(first), neighbourhoods(second)
    second = F.interpolate(second.permute(0, 3, 1, 2), size=first.shape[1:3], mode="bilinear",
                           align_corners=False).permute(0, 2, 3, 1)
    shorten = lambda x: pool(x, 1024) if x.shape[-1] > 1024 else x
    both = torch.cat([pool(shorten(first), 192), pool(shorten(second), 192)], -1)
    return pool(both, features).permute(0, 3, 1, 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rgb, stored = picture(), {}

    def store(name, x):
        x = x.contiguous().flatten()
        stored[name] = x[:: -(-x.numel() // STORED)].clone()

    networks = {"efficientnet_lite0": lambda: lite0(rgb),
                "resnet18": lambda: resnet(rgb, False, [2, 2, 2], 64),
                "resnet50": lambda: resnet(rgb, True, [3, 4, 6], 64),
                "wide_resnet50": lambda: resnet(rgb, True, [3, 4, 6], 128),
                "wide_resnet101": lambda: resnet(rgb, True, [3, 4, 23], 128)}
    with torch.no_grad():
        for name, run in networks.items():
            first, second = run()
            for part, x in (("first", first), ("second", second), ("descriptors_384", describe(first, second, 384)),
                            ("descriptors_96", describe(first, second, 96))):
                store(f"{name}.{part}", x)
                print(f"{name}.{part}", tuple(x.shape), f"mean {x.mean():.3f} std {x.std():.3f}")
    save_file(stored, str(Path(__file__).with_name("backbones.safetensors")))
