"""The baseline to beat: a regularised linear probe on frozen ImageNet features.

Run it in a project whose stage `split` has run (`dvc repro split`):

    python experiments/linear_probe.py

It reads the same tables, judges on the same folds and validation pictures, and decides by
thresholds calibrated the same way as the project's own models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shoetagger import params as parameters
from shoetagger.evaluate import report
from shoetagger.features import Live
from shoetagger.model import build
from shoetagger.split import read_split
from shoetagger.stages.inputs import open_pictures
from shoetagger.thresholds import calibrate, decide

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)  # of the probe's L2 penalty's inverse, C


def pooled_features(params: parameters.Params, images: Path, table_path: Path) -> np.ndarray:
    """Return the last stage's spatial means (N, channels) of pictures as the night sees them."""
    model, _ = build(params.train.arch, 1, "imagenet", ("layer4",), dropout=0.0)
    pictures = open_pictures(params, read_split(table_path), images)
    source = Live(model.eval(), pictures, "layer4", torch.device("cpu"))
    batches = np.array_split(np.arange(len(pictures)), max(1, len(pictures) // 32))
    return np.concatenate([source.plain(rows).map.mean(dim=(2, 3)).numpy() for rows in batches])


def probe(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
    """Fit one logistic regression a tag on x (N, features), y (N, tags); return scores of new."""
    columns = []
    for truth in y.T:
        if truth.min() == truth.max():
            columns.append(np.full(len(new), float(truth[0])))
            continue
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        columns.append(fitted.fit(x, truth).predict_proba(new)[:, 1])
    return np.stack(columns, axis=1)


def main() -> None:
    """Print the probe's macro F1 by group, out of fold and on the validation pictures."""
    params = parameters.load(Path("params.yaml"))
    features = pooled_features(params, Path("data/images"), Path("split/images.csv"))
    rule = params.evaluate
    for strength in STRENGTHS:
        for group, spec in params.groups.items():
            table = read_split(Path("split") / f"{group}.csv")
            truth = table[list(spec.tags)].to_numpy(dtype=np.uint8)
            training = (table["side"] == "train").to_numpy()
            folds = table["fold"].to_numpy()
            out_of_fold = np.zeros(truth.shape)
            for fold in np.unique(folds):
                here, rest = training & (folds == fold), training & (folds != fold)
                if here.any():
                    out_of_fold[here] = probe(features[rest], truth[rest], features[here], strength)
            decisions = np.zeros_like(truth)
            for fold in np.unique(folds):
                here, rest = training & (folds == fold), training & (folds != fold)
                if here.any():
                    thresholds, _ = calibrate(out_of_fold[rest], truth[rest], rule.shrink)
                    decisions[here] = decide(out_of_fold[here], thresholds)
            thresholds, _ = calibrate(out_of_fold[training], truth[training], rule.shrink)
            held = probe(features[training], truth[training], features[~training], strength)
            judged = {
                "out of fold": (truth[training], out_of_fold[training], decisions[training]),
                "validation": (truth[~training], held, decide(held, thresholds)),
            }
            words = []
            for name, (true, scores, said) in judged.items():
                found = report(
                    true, scores, said, spec.tags,
                    min_positives=rule.min_positives, bootstrap=rule.bootstrap, seed=1,
                )  # fmt: skip
                words.append(f"{name} {found['macro_f1']} {found['macro_f1_interval']}")
            print(f"C={strength:<6} {group:<8} {'; '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
