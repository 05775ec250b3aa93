"""Writes detector_small.safetensors and detector_medium.safetensors, which tests/it/goldens.rs holds the networks against.

    python tests/goldens/detector.py        # needs torch, numpy, safetensors

An independent computation in PyTorch (f32, one thread) of what EfficientAD (arXiv 2303.14535) defines: features, maps,
quantiles, score, losses, gradients and three Adam steps. Widths are reduced so that the files stay small; kernels,
strides, paddings and sizes are the paper's. Weights and pictures come from an integer hash that the test knows too, so
they are not stored; long tensors are stored as every n-th element.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FEATURES = 10
WIDTHS = (6, 8)
AUTOENCODER_WIDTHS = (4, 6)
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def hashed(name, index):
    """32 hash bits for each element of `index` (uint64 array), different for each name."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    x = (index.astype(np.uint64) + np.uint64(seed)) & np.uint64(0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return x ^ (x >> np.uint64(16))


def drawn(name, shape, fan_in):
    unit = (hashed(name, np.arange(np.prod(shape))) >> np.uint64(8)).astype(np.float32) / np.float32(1 << 23)
    bound = np.float32(1) / np.sqrt(np.float32(fan_in))
    return torch.from_numpy((unit - np.float32(1)) * bound).reshape(shape)


def picture(seed, rows, columns):
    """A smooth random picture with some hard-edged squares, normalised."""
    y, x, c = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(3), indexing="ij")
    node = lambda i, j: (hashed(f"smooth{seed}", (i * 256 + j) * 3 + c) >> np.uint64(24)).astype(np.int64)
    i, j, fy, fx = y // 16, x // 16, y % 16, x % 16
    smooth = ((16 - fy) * ((16 - fx) * node(i, j) + fx * node(i, j + 1))
              + fy * ((16 - fx) * node(i + 1, j) + fx * node(i + 1, j + 1))) >> 8
    square = (y // 24) * 256 + x // 24
    level = (hashed(f"level{seed}", square * 3 + c) >> np.uint64(24)).astype(np.int64)
    rgb = np.where(hashed(f"square{seed}", square) % np.uint64(5) == 0, level, smooth)
    tensor = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 255
    return (tensor - MEAN) / STD


class Network:
    """Named convolutions whose weights are drawn at first use."""

    def __init__(self, name):
        self.name, self.parameters = name, {}

    def conv(self, layer, x, outputs, kernel, stride=1, padding=0):
        for part, shape in (("weight", (outputs, x.shape[1], kernel, kernel)), ("bias", (outputs,))):
            key = f"{self.name}.{layer}.{part}"
            if key not in self.parameters:
                self.parameters[key] = drawn(key, shape, x.shape[1] * kernel * kernel).requires_grad_()
        weight, bias = (self.parameters[f"{self.name}.{layer}.{part}"] for part in ("weight", "bias"))
        return F.conv2d(x, weight, bias, stride, padding)


class Pdn(Network):
    def __init__(self, name, size, outputs):
        super().__init__(name)
        a, b = WIDTHS
        self.layers = {"small": [(4, a, 3), (4, b, 3), (3, b, 1), (4, outputs, 0)],
                       "medium": [(4, a, 3), (4, b, 3), (1, b, 0), (3, b, 1), (4, outputs, 0), (1, outputs, 0)]}[size]

    def __call__(self, x, padded=False):
        for n, (kernel, outputs, padding) in enumerate(self.layers, 1):
            x = self.conv(f"conv{n}", x, outputs, kernel, padding=padding * padded)
            if n < len(self.layers):
                x = x.relu()
            if n <= 2:
                x = F.avg_pool2d(x, 2, 2, padding=int(padded))
        return x


class Autoencoder(Network):
    def __call__(self, x):
        rows, columns = x.shape[2:]
        sides = lambda s: (s // 64 - 1, s // 32, s // 16 - 1, s // 8, s // 4 - 1, s // 2 - 1, s // 4 - 8)
        a, b = AUTOENCODER_WIDTHS
        for n, outputs in enumerate((a, a, b, b, b), 1):
            x = self.conv(f"enconv{n}", x, outputs, 4, stride=2, padding=1).relu()
        x = self.conv("enconv6", x, b, 8)
        for n, size in enumerate(zip(sides(rows), sides(columns)), 1):
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = self.conv(f"deconv{n}", x, b, *((4, 1, 2) if n < 7 else (3, 1, 1))).relu()
        return self.conv("deconv8", x, FEATURES, 3, padding=1)


def every(tensor, most=4096):
    flat = tensor.detach().flatten()
    return flat[:: -(-flat.numel() // most)].clone()


def golden(size, rows, columns):
    teacher, student = Pdn("teacher", size, FEATURES), Pdn("student", size, 2 * FEATURES)
    autoencoder = Autoencoder("autoencoder")
    train, augmented, penalty = pictures = [picture(seed, rows, columns) for seed in range(3)]
    out = {}
    with torch.no_grad():
        out["forward.teacher_padded"] = every(teacher(train, padded=True))
        features = [teacher(p) for p in pictures]
        for name, network in (("teacher", teacher), ("student", student), ("autoencoder", autoencoder)):
            out[f"forward.{name}"] = every(network(train))
        std, mean = torch.std_mean(torch.cat(features).double(), dim=(0, 2, 3), correction=0, keepdim=True)
        mean, std = mean.float(), std.float()
        out["teacher_mean"], out["teacher_std"] = mean.flatten(), std.flatten()
        normalised = [(f - mean) / std for f in features]
        st, ae = [], []
        for p, t in zip(pictures, normalised):
            s = student(p)
            st.append((t - s[:, :FEATURES]).square().mean(1))
            ae.append((autoencoder(p) - s[:, FEATURES:]).square().mean(1))
        levels = torch.tensor([0.9, 0.995])
        qs, qa = (torch.quantile(torch.cat(m).flatten(), levels) for m in (st, ae))
        out["quantiles"] = torch.cat([qs, qa])
        out["map.student_teacher"], out["map.autoencoder_student"] = every(st[0]), every(ae[0])
        scaled = lambda m, q: 0.1 * (m - q[0]) / (q[1] - q[0])
        combined = (scaled(st[0], qs) + scaled(ae[0], qa)) / 2
        full = F.interpolate(F.pad(combined[None], (4, 4, 4, 4)), size=(300, 420), mode="bilinear")
        out["map.combined"], out["map.combined_300x420"] = every(combined), every(full)
        out["score"] = full.max()[None]

    trained = student.parameters | autoencoder.parameters
    optimiser = torch.optim.Adam(trained.values(), lr=1e-4, weight_decay=1e-5)
    losses = []
    for step in range(3):
        difference = (normalised[0] - student(train)[:, :FEATURES]).square()
        hard = difference[difference >= torch.quantile(difference.detach().flatten(), 0.999)].mean()
        penalised = student(penalty)[:, :FEATURES].square().mean()
        guess = autoencoder(augmented)
        guessing = (normalised[1] - guess).square().mean()
        following = (guess - student(augmented)[:, FEATURES:]).square().mean()
        total = hard + penalised + guessing + following
        losses.append([v.item() for v in (hard, penalised, guessing, following, total)])
        optimiser.zero_grad()
        total.backward()
        if step == 0:
            out |= {f"grad.{name}": p.grad.clone() for name, p in trained.items()}
        optimiser.step()
    out["losses"] = torch.tensor(losses)
    out |= {f"after3.{name}": p.detach().clone() for name, p in trained.items()}
    save_file({name: t.contiguous() for name, t in out.items()}, Path(__file__).with_name(f"detector_{size}.safetensors"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    golden("small", 256, 256)
    golden("medium", 256, 320)
