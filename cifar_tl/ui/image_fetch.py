"""Getting the images of a run that are not on this machine, in the background, while galleries wait for them.

The work is `data.sources.prepare`, the same that a run does first. It has a thread of its own rather than the prediction
process, which answers one request after the other: a download of minutes would hold up every prediction. What it does is
waiting, reading and copying, so pages stay quick. `ui.cached` keeps the fetches, `ui.gallery` shows them.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cifar_tl.data.progress import Progress
from cifar_tl.data.sources import prepare
from cifar_tl.errors import CifarTLError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedImages:
    """What `prepare` needs to know to make the store of a run."""

    source: str
    store_resolution: int
    seed: int


class Fetch:
    """One data set on its way, from the moment this is made. Written by its thread, read by every page that waits for it.

    `problem` is why it failed, in words; empty while it goes on and when it went well. `over` is set last.
    """

    def __init__(self, wanted: WantedImages, *, when_here: Callable[[], object]) -> None:
        """`when_here` is called in the thread once the images are here, before `over` is set."""
        self.progress = Progress("Starting", 0, 0, "images")
        self.problem = ""
        self.over = threading.Event()
        self._wanted, self._when_here = wanted, when_here
        # Daemon: a dashboard that is stopped does not wait for a download. Half a store is removed by the next one to prepare it.
        threading.Thread(target=self._run, name="fetch-images", daemon=True).start()

    def _run(self) -> None:
        wanted = self._wanted
        try:
            prepare(wanted.source, store_resolution=wanted.store_resolution, seed=wanted.seed, progress=self._tell)
            self._when_here()
        except CifarTLError as error:
            self.problem = str(error)
        except Exception as error:
            _log.exception("Fetching the images of %s raised an unexpected error", wanted.source)
            self.problem = f"An unexpected error ({type(error).__name__}). The details are in the terminal where the dashboard was started."
        finally:
            self.over.set()

    def _tell(self, progress: Progress) -> None:
        self.progress = progress
