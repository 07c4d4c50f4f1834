"""A candidate as the user attributes of a trial, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.candidates.candidate import Candidate, State
from nas.errors import StudyError
from nas.study.settings import Settings
from nas.training.report import RungReport

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def attributes(candidate: Candidate) -> dict[str, Any]:
    """Return what is written down of a candidate at its birth."""
    return {
        "architecture": candidate.architecture.to_json(),
        "num_params": candidate.num_params,
        "macs": candidate.macs,
        "peak_memory": candidate.peak_memory,
        "key": candidate.key,
        "seed": candidate.seed,
        "attempt": 1,
    }


def report_attribute(report: RungReport, attempt: int) -> tuple[str, list[float]]:
    """Return name and value of the attribute that holds a report of an attempt."""
    return f"rung_{report.rung}", [attempt, *astuple(report)[1:]]


def read_trial(trial: FrozenTrial, settings: Settings) -> tuple[Candidate, int]:
    """Return the candidate of a trial and the number of its last attempt.

    Reports of earlier attempts, which ended when a worker or the coordinator died, are left
    out. Raises StudyError for a trial that nas did not write.
    """
    attrs = trial.user_attrs
    try:
        attempt = int(attrs["attempt"])
        curve = tuple(_read_curve(attrs, attempt, len(settings.rungs)))
        state = STATES[trial.state]
        candidate = Candidate(
            trial=trial.number,
            architecture=Architecture.from_json(attrs["architecture"]),
            num_params=attrs["num_params"],
            macs=attrs["macs"],
            peak_memory=attrs["peak_memory"],
            key=attrs["key"],
            state=state,
            seed=attrs["seed"],
            curve=curve,
            val_accuracy=curve[-1].val_accuracy if curve else None,
            # A killed coordinator may have written the reason and not the end.
            reason=attrs.get("reason") if state in {"pruned", "failed"} else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"trial {trial.number} was not written by nas ({type(error).__name__}: "
            f"{error}): is this storage another program's?"
        ) from error
    return candidate, attempt


def _read_curve(
    attrs: dict[str, Any], attempt: int, rungs: int
) -> Iterator[RungReport]:
    for rung in range(rungs):
        values: Sequence[Any] = attrs.get(f"rung_{rung}", [None])
        if values[0] != attempt:
            return
        epochs, val_accuracy, train_loss, seconds = values[1:]
        yield RungReport(
            rung=rung,
            epochs=epochs,
            val_accuracy=val_accuracy,
            train_loss=train_loss,
            seconds=seconds,
        )
