"""The dashboard's use of Optuna: times, importances, Optuna's own dashboard.

Apart from nas/study/ this is the only importer of optuna: that dashboard needs a
storage of Optuna's class, and the importances need one of its studies.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import wsgi

from nas.study.optuna_internals import id_of_study, renumbered
from nas.study.records import is_foreign
from nas.study.study import Study

Place = tuple[BaseStorage, int]
"""A study's storage and its number there."""

_MOST_TRIALS = 1000
"""The importances of 1,000 trials take about a second and hardly change with more."""


def place_of(study: Study) -> Place:
    """Return the study's open storage and its number there."""
    return study._storage, study._id  # noqa: SLF001  # Study has no public access yet


def trial_times(study: Study) -> list[tuple[datetime | None, datetime | None]]:
    """Return the start and the end of each trial, in the order of trials."""
    storage, number = place_of(study)
    trials = storage.get_all_trials(number, deepcopy=False)
    return [
        (trial.datetime_start, trial.datetime_complete)
        for trial in trials
        if not is_foreign(trial)
    ]


def importances(study: Study, losses: Mapping[int, float]) -> dict[str, float]:
    """Return the importance of each of the sampler's choices for a loss; sum 1.

    ``losses`` has a loss, lower is better, for each trial that counts; of very many an
    even sample is used. The method is PED-ANOVA (Watanabe et al. 2023, Optuna's
    default), on the choices that at least half of these trials have made.
    """
    storage, number = place_of(study)
    trials = [
        trial
        for trial in storage.get_all_trials(number, deepcopy=False)
        if trial.number in losses and trial.params
    ]
    step = max(1, len(trials) // _MOST_TRIALS)
    counted = trials[::step]
    judged = optuna.create_study(direction="minimize")
    judged.add_trials(
        create_trial(
            params=trial.params,
            distributions=trial.distributions,
            value=losses[trial.number],
        )
        for trial in counted
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(judged, evaluator=PedAnovaImportanceEvaluator())
    # A choice of few trials, such as a seventh block, seems important by chance.
    having = Counter(name for trial in counted for name in trial.params)
    kept = {n: share for n, share in found.items() if 2 * having[n] >= len(counted)}
    total = sum(kept.values())
    return {name: share / total for name, share in kept.items()} if total else {}


def optuna_page(
    places: Callable[[], Sequence[Place | None]],
) -> Callable[..., Iterable[bytes]]:
    """Return Optuna's own dashboard as a WSGI application over these studies.

    In it the number of a study is its index in the list.
    """
    application: Callable[..., Iterable[bytes]] = wsgi(JoinedStorage(places))
    return application


class JoinedStorage(BaseStorage):
    """Studies of several storages as one read-only storage.

    Optuna's dashboard shows a single storage and caches results by study number, so
    each study needs a unique number.
    """

    def __init__(self, places: Callable[[], Sequence[Place | None]]) -> None:
        self._places = places

    def _place(self, study_id: int) -> Place:
        places = self._places()
        place = places[study_id] if 0 <= study_id < len(places) else None
        if place is None:
            raise KeyError(study_id)
        return place

    def get_all_studies(self) -> list[Any]:
        """Return the studies, renumbered."""
        studies = []
        for number, place in enumerate(self._places()):
            if place is None:
                continue
            studies += [
                renumbered(study, number)
                for study in place[0].get_all_studies()
                if id_of_study(study) == place[1]
            ]
        return studies

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the number of the first study of that name."""
        for study in self.get_all_studies():
            if study.study_name == study_name:
                return id_of_study(study)
        raise KeyError(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the study's name."""
        storage, number = self._place(study_id)
        return storage.get_study_name_from_id(number)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction of each objective."""
        storage, number = self._place(study_id)
        return storage.get_study_directions(number)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's attributes."""
        storage, number = self._place(study_id)
        return storage.get_study_user_attrs(number)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return Optuna's attributes of the study."""
        storage, number = self._place(study_id)
        return storage.get_study_system_attrs(number)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  # as Optuna has it
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the study's trials."""
        storage, number = self._place(study_id)
        return storage.get_all_trials(number, deepcopy=deepcopy, states=states)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Refuse: two storages may use the same trial number."""
        raise KeyError(trial_id)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise PermissionError("the dashboard only reads")

    # All that Optuna's storages can write.
    create_new_study = delete_study = _refuse
    set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = _refuse
    set_trial_intermediate_value = _refuse
    set_trial_user_attr = set_trial_system_attr = _refuse
