"""Everything that nas uses beyond Optuna's public interface.

Any release of Optuna may change these parts. So pyproject.toml lets only releases in that are
known here, and a test fails on any other one: read then what changed in Optuna in the
places below, and add the release to both.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages.journal import _storage as journal_storage
from optuna.trial import FrozenTrial, TrialState

KNOWN_RELEASES = ("5.0",)
"""The first two numbers of the versions with which these parts were tried."""


_range_as_json = functools.cache(distribution_to_json)


def share_ranges() -> None:
    """Let the trials of a journal share the ranges of their parameters.

    Each trial has a copy of its some fifty ranges, the same as in all others. Read once,
    they take half the memory and half the time to open a study.
    """
    journal_storage.json_to_distribution = functools.cache(  # type: ignore[attr-defined]
        json_to_distribution
    )


def id_of_trial(trial: FrozenTrial) -> int:
    """Return the trial's number in its storage, which is not that in its study."""
    return trial._trial_id  # noqa: SLF001


def id_of_study(study: Any) -> int:
    """Return the number in its storage of what ``get_all_studies`` gave."""
    return int(study._study_id)  # noqa: SLF001


def renumbered(study: Any, number: int) -> Any:
    """Return a copy of what ``get_all_studies`` gave, with another number."""
    ours = copy.copy(study)
    ours._study_id = number  # noqa: SLF001
    return ours


def attribute_table() -> Any:
    """Return the table of the trials' attributes, as a model of SQLAlchemy's."""
    # Only here: a journal needs no SQLAlchemy.
    from optuna.storages._rdb import models

    return models.TrialUserAttributeModel


class QuickInsertStorage(RDBStorage):
    """Optuna's storage in a database, which adds and ends a trial with few queries."""

    _newest = (-1, -1)  # the trial that was added last: its id and number

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> Any:
        """Add the trial in the open transaction: Optuna's, with a tenth of its queries.

        It would look up the trial and another one with the same parameter before it
        writes each of some fifty parameters, and search for each new attribute. In a
        space the same name always comes with the same range, and the trial is new.
        """
        from optuna.storages._rdb import models
        from sqlalchemy import insert

        prepare = super()._get_prepared_new_trial
        if template_trial is None:
            return prepare(study_id, None, session)
        bare = copy.copy(template_trial)
        bare.params, bare.distributions, bare.user_attrs = {}, {}, {}
        trial = prepare(study_id, bare, session)
        kinds = template_trial.distributions
        params = [
            {
                "trial_id": trial.trial_id,
                "param_name": name,
                "param_value": kinds[name].to_internal_repr(value),
                "distribution_json": _range_as_json(kinds[name]),
            }
            for name, value in template_trial.params.items()
        ]
        attributes = [
            {"trial_id": trial.trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in template_trial.user_attrs.items()
        ]
        # As rows, not as objects of the session, which would look after each of them.
        for model, rows in (
            (models.TrialParamModel, params),
            (models.TrialUserAttributeModel, attributes),
        ):
            if rows:
                session.execute(insert(model.__table__), rows)
        self._newest = int(trial.trial_id), int(trial.number)
        return trial

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the trial's number in its study; Optuna's reads the whole trial."""
        if trial_id == self._newest[0]:
            return self._newest[1]
        from optuna.storages._rdb import models
        from sqlalchemy import select

        with self.engine.connect() as connection:
            number = connection.scalar(
                select(models.TrialModel.number).where(
                    models.TrialModel.trial_id == trial_id
                )
            )
        if number is None:
            raise KeyError(f"the storage holds no trial of the id {trial_id}")
        return int(number)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Write how a trial ended: Optuna's, with half of its queries."""
        from optuna.storages._rdb import models
        from optuna.storages._rdb.storage import _create_scoped_session
        from sqlalchemy import insert, update

        trials = models.TrialModel
        finished = [one for one in TrialState if one.is_finished()]
        with _create_scoped_session(self.scoped_session) as session:
            ended = session.execute(
                update(trials)
                .where(trials.trial_id == trial_id, trials.state.not_in(finished))
                .values(state=state, datetime_complete=datetime.now())  # noqa: DTZ005  # as Optuna has it
                .execution_options(synchronize_session=False)
            )
            if state.is_finished() and ended.rowcount:  # type: ignore[attr-defined]
                rows = []
                for objective, value in enumerate(values or ()):
                    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                    rows.append(
                        {
                            "trial_id": trial_id,
                            "objective": objective,
                            "value": stored,
                            "value_type": kind,
                        }
                    )
                if rows:
                    session.execute(insert(models.TrialValueModel.__table__), rows)
                return True
            session.rollback()
        # No such trial, one that has ended, or one that begins: Optuna tells.
        return super().set_trial_state_values(trial_id, state, values)
