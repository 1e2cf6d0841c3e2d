"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068; the package cleanlab).

It counts as mislabelled an image of which a model that has not seen it is as sure of another class as it usually is of images of that class.
So many labels are listed: those of the lowest self-confidence, which is the probability of the given label. Of CIFAR-100 with
flipped labels this finds half as many again as listing the counted images themselves.
"""

import numpy as np

from cifar_tl.evaluation.suspicion.result import LabelIssues


def doubted_labels(labels_N: np.ndarray, probabilities_NC: np.ndarray, is_known_C: np.ndarray) -> np.ndarray:
    """int64 positions, the most doubtful first. `probabilities_NC` are out of sample.

    Images of classes that are not known, since the model could not learn them, are left out: of them it can say nothing.
    """
    known = np.flatnonzero(is_known_C[labels_N])
    if len(np.unique(labels_N[known])) < 2:
        return np.empty(0, np.int64)
    from cleanlab.filter import find_label_issues

    # One process: forking a program that has threads is asking for trouble, and takes longer.
    ranked = find_label_issues(
        labels_N[known].astype(np.int64),
        probabilities_NC[known],
        filter_by="low_self_confidence",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return known[np.asarray(ranked, np.int64)]


def label_issues(
    split: int, rows_N: np.ndarray, labels_N: np.ndarray, probabilities_NC: np.ndarray, positions_n: np.ndarray
) -> LabelIssues:
    """The doubted images at these positions, as they are kept. The suggestion is the likeliest class other than the given one."""
    given, others = labels_N[positions_n].astype(np.int64), probabilities_NC[positions_n].copy()
    given_probability = np.take_along_axis(others, given[:, None], 1)[:, 0]
    np.put_along_axis(others, given[:, None], -1, 1)
    suggested = others.argmax(1)
    return LabelIssues(
        split_n=np.full(len(positions_n), split, np.int8),
        row_n=rows_N[positions_n].astype(np.int64),
        given_n=given.astype(np.int32),
        suggested_n=suggested.astype(np.int32),
        given_probability_n=given_probability.astype(np.float32),
        suggested_probability_n=np.take_along_axis(others, suggested[:, None], 1)[:, 0].astype(np.float32),
    )
