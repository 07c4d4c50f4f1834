"""Which screenings end early: what candidates showed at each rung, and the rule."""

from __future__ import annotations

from nas.candidates.candidate import Candidate
from nas.candidates.pruning import RungResult, RungResults, count_rivals, should_prune
from nas.study.settings import Settings
from nas.training.report import RungReport


class Pruner:
    """Judges each report by those of the candidates that are at most as large."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Where each candidate stood at each rung: the rivals of those to come.
        self._results = [RungResults() for _ in settings.rungs]

    def reason_to_prune(self, candidate: Candidate, report: RungReport) -> str | None:
        """Return why the training is to end here, None where it goes on."""
        settings = self._settings
        last = report.rung == len(settings.rungs) - 1
        # Who names a net to start from wants to know what it is worth.
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
        """Let the report be one that others are judged by."""
        self._results[report.rung].put(candidate.trial, _result(candidate, report))

    def forget(self, trial: int) -> None:
        """Judge nobody by a training that failed, or begins anew."""
        for results in self._results:
            results.drop(trial)


def _result(candidate: Candidate, report: RungReport) -> RungResult:
    return RungResult(candidate.num_params, report.val_accuracy, report.train_loss)
