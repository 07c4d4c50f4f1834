"""A candidate as the user attributes of a trial, and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.candidates.candidate import Candidate, State, Training
from nas.errors import StudyError
from nas.study.settings import Settings
from nas.training.report import RungReport

_TRAINING = "training_"

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def attributes(candidate: Candidate) -> dict[str, Any]:
    """Return what is recorded of a candidate when it is created."""
    return {
        "architecture": candidate.architecture.to_json(),
        "num_params": candidate.num_params,
        "macs": candidate.macs,
        "peak_memory": candidate.peak_memory,
        "key": candidate.key,
        "seed": candidate.seed,
        "attempt": 1,
        "origin": candidate.origin,
        "parent": candidate.parent,
    }


def report_attribute(report: RungReport, attempt: int) -> tuple[str, dict[str, Any]]:
    """Return name and value of the attribute that holds a report of an attempt."""
    return f"rung_{report.rung}", {"attempt": attempt} | asdict(report)


def training_attribute(training: Training) -> tuple[str, dict[str, Any]]:
    """Return name and value of the study's attribute that holds a longer training."""
    name = f"{_TRAINING}{training.trial}_{training.epochs}_{training.seed_number}"
    return name, asdict(training)


def read_trainings(attributes: dict[str, Any]) -> dict[str, Training]:
    """Return the longer trainings among a study's attributes, by their names.

    Raises StudyError for one that nas did not write.
    """
    found = {}
    for name, value in attributes.items():
        if not name.startswith(_TRAINING):
            continue
        try:
            curve = tuple(RungReport(**report) for report in value["curve"])
            found[name] = Training(**value | {"curve": curve})
        except (KeyError, TypeError) as error:
            raise StudyError(
                f"the study's attribute {name} was not written by nas "
                f"({type(error).__name__}: {error})"
            ) from error
    return found


def is_foreign(trial: FrozenTrial) -> bool:
    """Return whether another Optuna program made the trial; nas ignores such trials."""
    return "architecture" not in trial.user_attrs


def read_trial(trial: FrozenTrial, settings: Settings) -> tuple[Candidate, int]:
    """Return the candidate of a trial and the number of its last attempt.

    Reports of earlier attempts, which ended when a worker or the coordinator died, are
    left out. Raises StudyError for a trial that nas did not write.
    """
    attrs = trial.user_attrs
    try:
        attempt = int(attrs["attempt"])
        curve = tuple(_read_curve(attrs, attempt, len(settings.rungs)))
        state = STATES[trial.state]
        candidate = Candidate(
            trial=trial.number,
            architecture=_architecture(attrs["architecture"]),
            num_params=attrs["num_params"],
            macs=attrs["macs"],
            peak_memory=attrs["peak_memory"],
            key=attrs["key"],
            state=state,
            seed=attrs["seed"],
            curve=curve,
            val_accuracy=curve[-1].val_accuracy if curve else None,
            val_loss=curve[-1].val_loss if curve else None,
            origin=attrs.get("origin", "random"),
            parent=attrs.get("parent"),
            fully_trained=len(settings.levels) == 1,
            chance_level=settings.chance_level,
            # A killed coordinator may have written the reason and not the end.
            reason=attrs.get("reason") if state in {"pruned", "failed"} else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"trial {trial.number} was not written by nas ({type(error).__name__}: "
            f"{error}): is this storage another program's?"
        ) from error
    return candidate, attempt


def _architecture(text: str) -> Architecture:
    """Return the architecture with interned strings, shared by all candidates."""
    return Architecture.from_dict(
        json.loads(
            text,
            object_hook=lambda part: {
                name: sys.intern(value) if isinstance(value, str) else value
                for name, value in part.items()
            },
        )
    )


def _read_curve(
    attrs: dict[str, Any], attempt: int, rungs: int
) -> Iterator[RungReport]:
    for rung in range(rungs):
        record = attrs.get(f"rung_{rung}")
        if isinstance(record, list):  # format 1
            names = ("attempt", "epochs", "val_accuracy", "train_loss", "seconds")
            record = dict(zip(names, record, strict=True)) | {"rung": rung}
        if record is None or record["attempt"] != attempt:
            return
        yield RungReport(**{k: v for k, v in record.items() if k != "attempt"})
