"""Times an EfficientAD training step in PyTorch (eager), as the peer of `inspectord train` on the same machine.

    python benches/training_step.py [small|medium|tiny] [steps] [threads] [device]      # needs torch

The same networks, losses, optimiser and batch of one as `inspectord train`: the teacher sees the augmented picture, its
features of the training picture are remembered; the student sees training, penalty and augmented picture in one batch.
Beside it: inspectord train --data DIR --penalty DIR --teacher FILE --out /tmp/m --steps 20 --json | grep training
"""
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = {"tiny": (32, 64, 96, 8, 16), "small": (128, 256, 384, 32, 64), "medium": (256, 512, 384, 32, 64)}


def pdn(size, out):
    a, b = WIDTHS[size][:2]
    pool = lambda: nn.AvgPool2d(2, 2)
    if size == "medium":
        return nn.Sequential(nn.Conv2d(3, a, 4), nn.ReLU(), pool(), nn.Conv2d(a, b, 4), nn.ReLU(), pool(),
                             nn.Conv2d(b, b, 1), nn.ReLU(), nn.Conv2d(b, b, 3), nn.ReLU(),
                             nn.Conv2d(b, out, 4), nn.ReLU(), nn.Conv2d(out, out, 1))
    return nn.Sequential(nn.Conv2d(3, a, 4), nn.ReLU(), pool(), nn.Conv2d(a, b, 4), nn.ReLU(), pool(),
                         nn.Conv2d(b, b, 3), nn.ReLU(), nn.Conv2d(b, out, 4))


def autoencoder(size):
    out, a, b = WIDTHS[size][2:]
    layers = []
    for i, o in ((3, a), (a, a), (a, b), (b, b), (b, b)):
        layers += [nn.Conv2d(i, o, 4, 2, 1), nn.ReLU()]
    layers += [nn.Conv2d(b, b, 8)]
    for side in (3, 8, 15, 32, 63, 127):
        layers += [nn.Upsample(size=side, mode="bilinear"), nn.Conv2d(b, b, 4, 1, 2), nn.ReLU(), nn.Dropout(0.2)]
    layers += [nn.Upsample(size=56, mode="bilinear"), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(b, out, 3, 1, 1))


def main():
    size = sys.argv[1] if len(sys.argv) > 1 else "small"
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    device = sys.argv[4] if len(sys.argv) > 4 else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    features = WIDTHS[size][2]
    teacher, student, ae = (n.to(device) for n in (pdn(size, features).eval(), pdn(size, 2 * features), autoencoder(size)))
    adam = torch.optim.Adam([*student.parameters(), *ae.parameters()], lr=1e-4, weight_decay=1e-5)
    x, penalty, augmented = (torch.randn(1, 3, 256, 256, device=device) for _ in range(3))
    with torch.no_grad():
        remembered = teacher(x)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        with torch.no_grad():
            target = teacher(augmented)
        s = student(torch.cat([x, penalty, augmented]))
        difference = (remembered - s[:1, :features]) ** 2
        hard = difference[difference >= quantile(difference.detach(), 0.999)].mean()
        a = ae(augmented)
        loss = (hard + (s[1, :features] ** 2).mean() + ((target - a) ** 2).mean()
                + ((a - s[2:, features:]) ** 2).mean())
        adam.zero_grad()
        loss.backward()
        adam.step()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    times = sorted(times[1:])  # the first one allocates
    print(f"PyTorch {torch.__version__}, {size}, {device}, {torch.get_num_threads()} threads, {len(times)} steps: "
          f"median {times[len(times) // 2]:.5f} s, best {times[0]:.5f} s")


def quantile(t, q):
    # torch.quantile refuses more than 16 million elements and sorts; kthvalue does what is needed.
    return t.flatten().kthvalue(int(q * (t.numel() - 1)) + 1).values


if __name__ == "__main__":
    main()
