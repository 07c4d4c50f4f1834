"""Everything that nas uses beyond Optuna's public interface.

Any release of Optuna may change these parts. So pyproject.toml lets only releases in that are
known here, and a test fails on any other one: read then what changed in Optuna in the
places below, and add the release to both.
"""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages.journal import _storage as journal_storage
from optuna.trial import FrozenTrial

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
    """Optuna's storage in a database, which adds a whole trial with few queries."""

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
        return trial

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the trial's number in its study; Optuna's reads the whole trial."""
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
