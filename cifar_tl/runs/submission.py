"""cluster.json in the folder of a run that was sent to a Ray cluster (`runs.cluster`): where it is, and since when."""

import json
import time
from dataclasses import dataclass

from cifar_tl.paths import RunFolder

SECONDS_TO_BEGIN = 120.0  # a job that was submitted has this long to take the run's lock before the run counts as lost


@dataclass(frozen=True)
class Submission:
    """`address` of the cluster, the job's name there, and when it was submitted (Unix time in seconds)."""

    address: str
    job: str
    submitted: float


def read_submission(folder: RunFolder) -> Submission | None:
    """None for a run that is not on a cluster."""
    try:
        raw = json.loads(folder.submission.read_text("utf-8"))
        return Submission(str(raw["address"]), str(raw["job"]), float(raw["submitted"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_expected(folder: RunFolder) -> bool:
    """True for a while after a run was sent to a cluster: its job has yet to begin."""
    submission = read_submission(folder)
    return submission is not None and 0 <= time.time() - submission.submitted < SECONDS_TO_BEGIN
