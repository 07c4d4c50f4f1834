"""Every error that a user can meet, each with what, where and the remedy in one line.

::

    NasError
    ├── UsageError          an option with a value that it cannot have; a ValueError, too
    ├── ArchitectureError   a description that no model can be built from
    ├── RecipeError         a recipe that cannot be read, or that makes no sense
    ├── SpaceError          a search space that cannot be read, or that no cap allows
    ├── DataError           a data set that is unknown, missing, damaged or misshapen
    ├── DeviceError         a device that is not there
    ├── EngineError         workers that cannot be started, a cluster out of reach
    ├── TrainingError       a candidate that could not be trained; the search goes on
    │   └── OutOfMemoryError  its device, or the machine, had no more memory
    ├── ExportError         a net that cannot be exported, or a tool for it that is missing
    └── StudyError          a study that is missing, in use, damaged or frozen otherwise
"""


class NasError(Exception):
    """Root of all errors that nas raises on purpose; its text is one line."""


class UsageError(NasError, ValueError):
    """An option has a value that it cannot have, or stands beside one it excludes."""


class ArchitectureError(NasError):
    """No model can be built from this description."""


class RecipeError(NasError):
    """The recipe cannot be read, or makes no sense."""


class SpaceError(NasError):
    """The search space cannot be read, or holds no net under the caps."""


class DataError(NasError):
    """The data set is unknown, missing, damaged or has the wrong shape."""


class DeviceError(NasError):
    """The device that was asked for is not there."""


class EngineError(NasError):
    """Workers cannot be started where they were asked for, or are out of reach."""


class TrainingError(NasError):
    """One candidate could not be trained; its text is the cause, alike for like causes."""


class OutOfMemoryError(TrainingError):
    """Memory ran out, which need not be the candidate's fault: workers share it."""


class ExportError(NasError):
    """The net cannot be exported this way, or what that needs is not installed."""


class StudyError(NasError):
    """The study is missing, in use, damaged, or was created with other settings."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
