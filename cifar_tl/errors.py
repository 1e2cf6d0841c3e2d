"""Every error a user can cause or meet, as one tree. Messages say what happened, with which value, and what to do next.

    CifarTLError
    ├── SettingsError            a setting or a combination of settings is refused (also a ValueError)
    ├── DataError
    │   ├── SourceUnavailable    the data set is not on disk and cannot be fetched
    │   ├── SourceInvalid        the source is there, but cannot become a data set
    │   └── ImageUnreadable      one image cannot be read; the others still can
    ├── BackboneError
    │   ├── UnknownBackbone      no such name in the catalogue or in timm
    │   └── WeightsUnavailable   pretrained weights are not on disk and cannot be fetched
    ├── RunError
    │   ├── RunNotFound          no run of that id
    │   ├── RunInvalid           the folder is there, but is not a readable run
    │   ├── RunActive            not while the worker of this run is alive
    │   └── ClusterUnavailable   no Ray cluster at that address, or it does not take the run
    ├── PredictionProcessDied    the prediction process ended in the middle of its work
    └── TrainingError
        ├── NonFiniteLoss        the loss became infinite or not a number
        └── DeviceUnavailable    the device or precision asked for is not on this machine

Catch these at two boundaries only: the worker (a failed event plus the traceback in worker.log) and the page
(`st.error`). The command line prints the message as one line on standard error.
"""


class CifarTLError(Exception):
    """Base of all errors whose message is meant for the user."""


class SettingsError(CifarTLError, ValueError):
    """A setting or a combination of settings is refused."""


class DataError(CifarTLError):
    """Something about the data."""


class SourceUnavailable(DataError):
    """The data set is not on disk and cannot be fetched."""


class SourceInvalid(DataError):
    """The source is there, but cannot become a data set."""


class ImageUnreadable(DataError):
    """One image cannot be read; the message is one clear line."""


class BackboneError(CifarTLError):
    """Something about the pretrained network."""


class UnknownBackbone(BackboneError):
    """No such name in the catalogue or in timm."""


class WeightsUnavailable(BackboneError):
    """Pretrained weights are not on disk and cannot be fetched."""


class RunError(CifarTLError):
    """Something about a run folder."""


class RunNotFound(RunError):
    """No run of that id."""


class RunInvalid(RunError):
    """The folder is there, but is not a readable run."""


class RunActive(RunError):
    """Refused while the worker of this run is alive."""


class ClusterUnavailable(RunError):
    """No Ray cluster at that address, or it does not take the run."""


class PredictionProcessDied(CifarTLError):
    """The prediction process ended in the middle of its work; the next request gets a new one."""


class TrainingError(CifarTLError):
    """Training cannot start or go on."""


class NonFiniteLoss(TrainingError):
    """The loss became infinite or not a number; the message names the step."""


class DeviceUnavailable(TrainingError):
    """The device or precision asked for is not on this machine."""


def explains_itself(name: str) -> bool:
    """True if errors of that class name are of this tree, so that their message is all a person needs."""
    found = globals().get(name)
    return isinstance(found, type) and issubclass(found, CifarTLError)
