"""Pruning of screenings: the reports at each rung, and the rule."""

from __future__ import annotations

from nas.candidates.candidate import Candidate
from nas.candidates.pruning import RungResult, RungResults, count_rivals, should_prune
from nas.study.settings import Settings
from nas.training.report import RungReport


class Pruner:
    """Compares each report with those of candidates of at most the same size."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Each candidate's result at each rung, for comparison with later ones.
        self._results = [RungResults() for _ in settings.rungs]

    def reason_to_prune(self, candidate: Candidate, report: RungReport) -> str | None:
        """Return the reason to stop the training, or None to continue."""
        settings = self._settings
        last = report.rung == len(settings.rungs) - 1
        # The user's own candidates are always trained fully, so that they can be compared.
        if settings.pruning is None or last or candidate.origin == "start":
            return None
        result = _result(candidate, report)
        peers = self._results[report.rung].peers()
        rule, size = settings.pruning, settings.noise_size
        if not should_prune(result, peers, rule=rule, val_size=size):
            return None
        rivals = count_rivals(result, peers, rule=rule, val_size=size)
        noun, verb = ("net", "was") if rivals == 1 else ("nets", "were")
        return (
            f"after {report.epochs:g} epochs {rivals} {noun} of at most its size "
            f"{verb} clearly more accurate"
        )

    def note(self, candidate: Candidate, report: RungReport) -> None:
        """Add a report for later comparisons."""
        self._results[report.rung].put(candidate.trial, _result(candidate, report))

    def forget(self, trial: int) -> None:
        """Remove the reports of a training that failed or restarts."""
        for results in self._results:
            results.drop(trial)


def _result(candidate: Candidate, report: RungReport) -> RungResult:
    return RungResult(candidate.num_params, report.val_accuracy, report.train_loss)
