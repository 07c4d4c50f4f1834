"""NAME, FILE or STUDY:TRIAL: the ways in which a user names one architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nas.references.bundled import Reference, find_reference
from nas.study.folders import find_study, load_settings, read_study
from nas.study.settings import Settings

_TRIAL = re.compile(r"(?P<study>[^:/\\]+):(?P<trial>\d{1,9})")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A named architecture, and the ``settings`` of its study, if any."""

    reference: Reference
    settings: Settings | None = None

    @property
    def dataset(self) -> str:
        """The data set that it was made for, by default MNIST."""
        if self.settings is not None:
            return self.settings.dataset
        published = self.reference.published
        return "mnist" if published is None else published.dataset


def resolve(name: str, studies: Path, storage: str | None = None) -> Resolved:
    """Return the architecture of that name.

    It is a reference that comes with nas, a file as find_reference takes it, or a
    candidate as ``STUDY:TRIAL``. ``storage`` is for a study whose trials are not in its
    folder. Raises ArchitectureError or StudyError when there is no such thing.
    """
    match = _TRIAL.fullmatch(name)
    if match is None:
        return Resolved(find_reference(name))
    folder = find_study(studies, match["study"])
    settings = load_settings(folder)
    study = read_study(folder, storage if settings.external_storage else None)
    try:
        candidate = study.candidate(int(match["trial"]))
    finally:
        study.close()
    return Resolved(
        Reference(
            name=name,
            architecture=candidate.architecture,
            source=f"trial {candidate.trial} of the study {settings.name}",
        ),
        settings,
    )
