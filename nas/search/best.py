"""From the candidates to the winner: contenders, screening, the choice, the full training.

The contenders are the candidates of all allowed sizes, and the best structures of other
sizes resized to the cap. Successive halving reduces them: what the search has not trained
gets a short training, the best a longer one, the best of those a full one. If the two best
of these are close, both get another seed. The choice is by validation loss and error,
over all seeds. The winner is trained anew on training and validation data together, once
for each seed, and the test set is read once a seed, after the last epoch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.candidates.candidate import Candidate, front
from nas.engines import Engine
from nas.environment import versions
from nas.errors import StudyError
from nas.search.balance import balance
from nas.search.contenders import Contender, contenders
from nas.search.kept_trainings import KeptTrainings
from nas.search.recipes import fidelities
from nas.search.retraining import Results, Show, Trainer, final_seed
from nas.study.settings import Settings
from nas.training.recipe import Recipe
from nas.training.report import Metric

if TYPE_CHECKING:
    import numpy as np


# A training is worth while before a full one of at least so many times its epochs.
_SHORTER = 5
# For each finalist so many contenders get a first training, and so many a second one.
_SCREENED, _IN_BETWEEN = 6, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionCriteria:
    """What the user wants: the most accurate network, or the smallest accurate enough.

    ``max_params`` limits both. With ``min_accuracy`` (validation, 0 to 1) it is the
    smallest member of the front that reaches it after a full training. ``finalists``
    is how many contenders are fully trained before the choice, or at a time.
    """

    max_params: int
    min_accuracy: float | None = None
    finalists: int = 4
    epochs: int = 15
    seeds: int = 1
    recipe: Recipe | None = None
    """How all are trained, but for the epochs; None is as in the study."""
    metric: Metric | None = None
    """What the choice is by; None is as in the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The chosen contender, the weights of its first seed, and the report."""

    contender: Contender
    weights: dict[str, np.ndarray]
    report: dict[str, Any]


def retrain(
    candidates: Sequence[Candidate],
    settings: Settings,
    engine: Engine,
    criteria: SelectionCriteria,
    *,
    hardware: dict[str, Any],
    show: Show = lambda _: None,
    kept: KeptTrainings | None = None,
    data_name: str | None = None,
) -> Winner:
    """Choose the winner among the contenders and train it to the end.

    What has been trained is put into ``kept``, and what is there not trained again.
    ``data_name`` is what the report names the data set, by default as the study does.
    Raises StudyError when there is nothing to choose from, or no net is accurate
    enough.
    """
    began = time.monotonic()
    small_enough = allowed(candidates, criteria, settings)
    recipe = replace(criteria.recipe or settings.recipe, epochs=criteria.epochs)
    metric = criteria.metric or settings.metric
    trainer = Trainer(engine, settings, recipe, metric, small_enough, show, kept)
    if criteria.min_accuracy is None:
        choice = _most_accurate(candidates, small_enough, criteria, settings, trainer)
    else:
        members = [Contender.from_candidate(c) for c in front(small_enough)]
        choice = _smallest_reaching(members, criteria, trainer)
    winner, results = choice.winner, trainer.results
    tests, weights, confusions, kernels = trainer.final(winner, criteria.seeds)
    report = {
        "study": settings.name,
        "dataset": data_name or settings.dataset,
        "data_fingerprint": settings.data_fingerprint,
        "trial": winner.trial,
        "resized": winner.resized,
        "key": winner.key,
        "num_params": winner.num_params,
        "macs": winner.macs,
        "peak_memory": winner.peak_memory,
        "epochs": criteria.epochs,
        "seeds": criteria.seeds,
        "test_accuracy": tests,
        "test_accuracy_mean": statistics.fmean(tests),
        "test_accuracy_std": statistics.stdev(tests) if len(tests) > 1 else None,
        "test_accuracy_is": "after the last epoch, read once a seed; trained on the "
        "training and validation data",
        **balance(confusions),
        "val_accuracy": results.accuracy(winner),
        "val_loss": results.loss(winner),
        "val_accuracy_is": f"{metric.replace('-', ' ')} after {criteria.epochs} epochs on "
        "the training split alone",
        "metric": metric,
        "screened": choice.screened,
        "finalists": [
            _told(c, results) | {"search_val_accuracy": c.search_val_accuracy}
            for c in sorted(choice.finalists, key=lambda c: c.num_params)
        ],
        "recipe": asdict(recipe),
        "seed_values": [
            final_seed(settings, number) for number in range(criteria.seeds)
        ],
        "weights_seed": final_seed(settings, 0),
        "c_kernels": kernels,
        "duration_seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
        "hardware": hardware,
    }
    return Winner(contender=winner, weights=weights, report=report)


def allowed(
    candidates: Sequence[Candidate], criteria: SelectionCriteria, settings: Settings
) -> list[Candidate]:
    """Return the possible winners: candidates with a complete training that are small enough.

    Raises StudyError where there is none.
    """
    complete = [c for c in candidates if c.state == "complete"]
    if not complete:
        raise StudyError(
            f"the study {settings.name!r} has no fully trained candidate yet: run "
            f"`nas search --study {settings.name}` first"
        )
    small_enough = [c for c in complete if c.num_params <= criteria.max_params]
    if small_enough:
        return small_enough
    least = min(c.num_params for c in complete)
    raise StudyError(
        f"no fully trained candidate has at most {criteria.max_params} parameters: the "
        f"smallest has {least}; give at least --max-params {least}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """The winner, those it was chosen from, and the results of their short trainings."""

    winner: Contender
    finalists: list[Contender]
    screened: list[dict[str, Any]]


def _most_accurate(
    candidates: Sequence[Candidate],
    small_enough: Sequence[Candidate],
    criteria: SelectionCriteria,
    settings: Settings,
    trainer: Trainer,
) -> _Choice:
    """Return the best of the most promising contenders after a full training."""
    pool = contenders(candidates, small_enough, settings, criteria.max_params)
    levels = _short_trainings(criteria.epochs, settings)
    if levels:
        finalists, screened = _halved(pool, levels, criteria, trainer)
    else:
        finalists, screened = pool[: criteria.finalists], []
    results = trainer.results
    trainer.train([c for c in finalists if not results.count(c)], "finalist")
    finalists = _trained(finalists, results)

    def merit(one: Contender) -> tuple[float, int]:
        # Of equally good ones the smaller.
        return results.badness(one), one.num_params

    finalists.sort(key=merit)
    first, *others = finalists[:2]
    if others and results.are_close(first, others[0], settings.promotion.close):
        last_two = [first, *others]
        trainer.train([c for c in last_two if results.count(c) < 2], "finalist")
        first = min(last_two, key=merit)
    return _Choice(winner=first, finalists=finalists, screened=screened)


def _short_trainings(epochs: int, settings: Settings) -> list[int]:
    """Return the lengths of the trainings before a full one of so many epochs, rising."""
    levels = settings.levels if epochs == settings.levels[-1] else fidelities(epochs)
    return [level for level in levels if level * _SHORTER <= epochs]


def _halved(
    pool: Sequence[Contender],
    levels: Sequence[int],
    criteria: SelectionCriteria,
    trainer: Trainer,
) -> tuple[list[Contender], list[dict[str, Any]]]:
    """Reduce the contenders, given in order of promise, to those to be fully trained.

    Returns the best fully trained ones, too, and what was measured. Those that the
    search has trained as long are compared without another training.
    """
    fully_trained = [c for c in pool if trainer.results.count(c)]
    measured = []
    for number, level in enumerate(levels):
        short = trainer.for_epochs(level)
        new = [c for c in pool if not short.results.count(c)]
        if number == 0:
            left_out = {c.key for c in new[criteria.finalists * _SCREENED :]}
            pool = [c for c in pool if c.key not in left_out]
            new = [c for c in new if c.key not in left_out]
        short.train(new, "screening")
        pool = _trained(pool, short.results)
        measured += [
            {"epochs": level} | _told(c, short.results)
            for c in new
            if short.results.count(c)
        ]
        last = number == len(levels) - 1
        kept = criteria.finalists * (1 if last else _IN_BETWEEN)
        pool = short.by_promise(pool, criteria.epochs)[:kept]
    chosen = {c.key for c in pool}
    best_known = sorted(fully_trained, key=trainer.results.badness)
    known = [c for c in best_known[: criteria.finalists] if c.key not in chosen]
    return [*pool, *known], measured


def _trained(some: Sequence[Contender], results: Results) -> list[Contender]:
    """Return those with a result; raise StudyError where there is none."""
    found = [one for one in some if results.count(one)]
    if some and not found:
        raise StudyError(
            "no contender could be trained, for the causes above: give another recipe "
            "with --recipe"
        )
    return found


def _told(contender: Contender, results: Results) -> dict[str, Any]:
    """Return what the report says of a contender."""
    return {
        "trial": contender.trial,
        "resized": contender.resized,
        "num_params": contender.num_params,
        "val_accuracy": results.accuracy(contender),
        "val_loss": results.loss(contender),
        "seeds": results.count(contender),
    }


def _smallest_reaching(
    members: Sequence[Contender], criteria: SelectionCriteria, trainer: Trainer
) -> _Choice:
    """Return the smallest member that is accurate enough; train a few at a time."""
    wanted = criteria.min_accuracy or 0.0
    if not members:
        raise StudyError(
            "no net is better than always answering the largest class: search on, or "
            "leave --min-accuracy out"
        )
    results = trainer.results
    for start in range(0, len(members), criteria.finalists):
        some = members[start : start + criteria.finalists]
        trainer.train([c for c in some if not results.count(c)], "finalist")
        for member in some:
            if results.count(member) and results.accuracy(member) >= wanted:
                tried = _trained(members[: start + len(some)], results)
                return _Choice(winner=member, finalists=tried, screened=[])
    best = max(_trained(members, results), key=results.accuracy)
    raise StudyError(
        f"no net of the front reaches {wanted:g} after {criteria.epochs} epochs: the best, "
        f"trial {best.trial} with {best.num_params} parameters, has "
        f"{results.accuracy(best):.4f} on the validation split; search on, allow more "
        "parameters or train longer"
    )
