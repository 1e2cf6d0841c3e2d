"""Send runs to a Ray cluster: optional (requirements-ray.txt), and all that this machine does is to submit a Ray job.

The job's driver (`training.cluster_driver`, on the cluster's head) holds the run's lock and asks Ray for processors or GPUs; queueing,
placement and logs are Ray's. Everything else goes through the run folder, which lies on storage that all machines see under one path,
as this program does: status, stop and live charts are those of any run.

`runs.submission` keeps where a run was sent.
"""

import http.client
import json
import os
import shlex
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cifar_tl.errors import ClusterUnavailable
from cifar_tl.paths import PROJECT_ROOT, RunFolder, cache_root, checkpoints_root, corrections_root, data_root
from cifar_tl.runs.events import Failed
from cifar_tl.runs.hold import has_ended
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.store import is_alive, write_json
from cifar_tl.runs.submission import Submission, is_expected, read_submission

_SECONDS_TO_ANSWER = 5.0
_LOOK_AGAIN_SECONDS = 0.5
_SECONDS_TO_STOP = "120"  # from `ray job stop` until Ray kills the job; its own 3 do not suffice to write a checkpoint
_ROOTS = {"CIFAR_TL_DATA": data_root, "CIFAR_TL_CACHE": cache_root, "CIFAR_TL_CHECKPOINTS": checkpoints_root}
_INHERITED = ("TORCH_HOME", "HF_HOME")


def require_cluster(address: str) -> None:
    """Raises ClusterUnavailable if Ray is not installed here or no cluster answers at this address (of Ray's dashboard, http://HOST:8265)."""
    try:
        import ray.job_submission  # noqa: F401
    except ImportError:
        raise ClusterUnavailable(
            "Ray is not installed. Install it here and on the machines of the cluster: pip install -r requirements-ray.txt"
        ) from None
    if not address:
        raise ClusterUnavailable("Type the address of the cluster: that of Ray's dashboard, such as http://HOST:8265.")
    if not address.startswith(("http://", "https://")):
        raise ClusterUnavailable(
            f"{address!r} is no address of a Ray cluster: it looks like http://HOST:8265, where Ray shows its dashboard."
        )
    told: Any = None
    try:
        with urllib.request.urlopen(address.rstrip("/") + "/api/version", timeout=_SECONDS_TO_ANSWER) as answer:
            told = json.loads(answer.read(100_000))
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError):
        pass  # something else answered
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise ClusterUnavailable(f"What is at {address} does not answer within {_SECONDS_TO_ANSWER:.0f} seconds.") from None
        words = getattr(reason, "strerror", None) or reason
        raise ClusterUnavailable(f"No Ray cluster can be reached at {address} ({words}). Is it running?") from None
    if not (isinstance(told, dict) and "ray_version" in told):
        raise ClusterUnavailable(
            f"What answers at {address} is no Ray cluster. The address is that of Ray's dashboard, such as http://HOST:8265."
        )


def submit(folder: RunFolder, address: str) -> None:
    """Send the run to the cluster; returns when the job is accepted. The run's lock must be free. Raises ClusterUnavailable."""
    require_cluster(address)
    from ray.job_submission import JobSubmissionClient

    command = " ".join(shlex.quote(part) for part in (sys.executable, "-m", "cifar_tl", "cluster-driver", str(folder.path)))
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=command,
            submission_id=f"{folder.run_id}-{time.time_ns() % 10**9}",
            runtime_env={"env_vars": variables_of_job()},
            metadata={"run": folder.run_id},
        )
    except Exception as error:  # Ray's client raises RuntimeError, ConnectionError and those of its HTTP library
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterUnavailable(f"The Ray cluster at {address} did not take the run: {reason}") from error
    write_json(folder.submission, asdict(Submission(address, job, time.time())))
    threading.Thread(target=_watch_until_begun, args=(folder, client, job), name=f"submitted-{folder.run_id}", daemon=True).start()


def variables_of_job() -> dict[str, str]:
    """The environment of a run's driver: it works in another folder, so paths that were given are whole ones.

    Roots that nobody set are those of the machine that trains. What people corrected lies with this machine's data, and is named always.
    """
    variables = {name: str(root()) for name, root in _ROOTS.items() if os.environ.get(name)}
    variables |= {name: str(Path(os.environ[name]).expanduser().resolve()) for name in _INHERITED if os.environ.get(name)}
    return variables | {
        "CIFAR_TL_CORRECTIONS": str(corrections_root()),
        "PYTHONPATH": str(PROJECT_ROOT),
        "PYTHONUNBUFFERED": "1",
        "RAY_JOB_STOP_WAIT_TIME_S": _SECONDS_TO_STOP,
    }


def _watch_until_begun(folder: RunFolder, client: Any, job: str) -> None:
    """A job that dies before it has taken the run's lock can say nothing: this process says it then, if it still lives."""
    # Not only until the lock is held: who submits holds it at first.
    while is_expected(folder) and not has_ended(folder):
        submission = read_submission(folder)
        if submission is None or submission.job != job:
            return
        info = None
        with suppress(Exception):  # the cluster is busy, or went away: then the run is lost when its time is up
            info = client.get_job_info(job)
        if info is not None and info.status.is_terminal() and not is_alive(folder) and not has_ended(folder):
            reason = " ".join((info.message or "it gave no reason").split())[-500:]
            with EventWriter(folder.events) as log:
                message = f"The job on the Ray cluster ended before the run began: {reason}"
                log.write_last(Failed(error="JobFailed", message=message, seconds=0.0))
            return
        time.sleep(_LOOK_AGAIN_SECONDS)
