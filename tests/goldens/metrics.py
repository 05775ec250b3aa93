"""Makes metrics.json: scored maps with masks, and what scikit-learn and a plain definition of AU-PRO say of them.

    python metrics.py             # needs numpy, scipy and scikit-learn; writes beside itself

Scores are whole hundredths, so that many are equal: a metric must treat equal scores as one threshold. AU-PRO is
computed from its definition, one threshold after the other (Bergmann et al., "The MVTec Anomaly Detection Dataset").
"""
import json
from pathlib import Path

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

PICTURES, ROWS, COLUMNS = 8, 20, 24


def aupro(maps, masks, limit):
    """Mean overlap of 8-connected regions against the false-positive rate, integrated up to `limit`, over `limit`."""
    regions = []
    for picture, mask in enumerate(masks):
        labels, count = label(mask, structure=np.ones((3, 3)))
        regions += [maps[picture][labels == k] for k in range(1, count + 1)]
    background = maps[masks == 0]
    curve = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        curve.append((np.mean(background >= threshold), np.mean([np.mean(r >= threshold) for r in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(curve, curve[1:]):
        end = min(x1, limit)
        if end > x0:
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def main():
    random = np.random.default_rng(20)
    masks = np.zeros((PICTURES, ROWS, COLUMNS), int)
    for picture in range(3, PICTURES):
        for _ in range(random.integers(1, 4)):
            row, column = random.integers(0, ROWS - 5), random.integers(0, COLUMNS - 5)
            height, width = random.integers(1, 6, 2)
            masks[picture, row:row + height, column:column + width] = 1
    masks[4, 2, 2] = masks[4, 3, 3] = 1  # touch at a corner only: one region
    scores = np.round(100 * (random.normal(0, 0.7, masks.shape) + 1.2 * masks)).astype(int)
    # Small normal pictures whose maxima overlap with the defective ones'.
    scores[0, 3, 5] = scores[masks.reshape(PICTURES, -1).any(1)].max() - 3
    maps = (scores / 100).astype(np.float32)
    truth, score = masks.reshape(PICTURES, -1).max(1), maps.reshape(PICTURES, -1).max(1)
    precision, recall, thresholds = precision_recall_curve(truth, score)
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1]
    golden = {
        "rows": ROWS,
        "columns": COLUMNS,
        "hundredths": scores.reshape(PICTURES, -1).tolist(),
        "masks": ["".join(map(str, mask.ravel())) for mask in masks],
        "image_auroc": roc_auc_score(truth, score),
        "image_average_precision": average_precision_score(truth, score),
        "image_f1_max": float(f1.max()),
        "image_f1_threshold": float(thresholds[f1.argmax()]),
        "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel()),
        "aupro_30": aupro(maps, masks, 0.30),
        "aupro_05": aupro(maps, masks, 0.05),
    }
    path = Path(__file__).with_name("metrics.json")
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
