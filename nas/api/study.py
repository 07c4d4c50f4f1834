"""Searches for networks, and a study's results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from nas.api.checks import SEARCH_EPOCHS, checked
from nas.api.data import Data, dataset_of, folder_of, name_of
from nas.api.networks import Network, reference_of
from nas.api.progress import retraining_line, search_display, training_display
from nas.api.searching import run_search, title_of
from nas.api.settings import image_size_of, path_of, storage_url, studies_folder
from nas.api.trained import Trained
from nas.api.training import run_best
from nas.api.words import in_python
from nas.api.workers import EngineName, WorkersWanted
from nas.candidates.candidate import front
from nas.data import Dataset, load_dataset
from nas.errors import UsageError
from nas.search.ladder import caps, winner_folders
from nas.search.recipes import RecipeChange
from nas.search.start import Request
from nas.study.folders import find_study, only_study, read_study, winner_folder
from nas.study.settings import Sampler
from nas.study.study import Study as StoredStudy
from nas.training.report import Metric

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Study:
    """The results of a study, as `nas.search` and `nas.open_study` return it.

    It is a snapshot: call `nas.open_study` again for newer results.

    Attributes:
        name: the study's name.
        folder: the study's folder, with front.html and front.csv.
        settings: the frozen settings, as in study.toml.
        outcome: why the search ended: "done", "target accuracy", "time limit" or
            "exhausted" (the space holds no further network under the caps); None for a
            study that was only opened.
    """

    def __init__(
        self,
        stored: StoredStudy,
        *,
        data: Dataset | None = None,
        outcome: str | None = None,
    ) -> None:
        """Use `nas.search` or `nas.open_study`."""
        self.settings, self.folder = stored.settings, stored.folder
        self.name, self.outcome = stored.settings.name, outcome
        self._candidates, self._decisions = stored.candidates(), stored.decisions()
        self._data = data

    def __repr__(self) -> str:
        members = front(self._candidates)
        best = (
            f", up to {100 * (members[-1].val_accuracy or 0):.2f} %" if members else ""
        )
        if members and self.settings.metric == "balanced-accuracy":
            best += " balanced accuracy"
        return (
            f"<Study {self.name}: {len(self._candidates)} trials, {len(members)} on the "
            f"front{best} on the validation split>"
        )

    @in_python
    def front(self, *, board: str | Path | None = None) -> pd.DataFrame:
        """Return the Pareto front, smallest network first, as one row per network.

        `val_accuracy` is 0 to 1, `macs` are per image, `peak_memory` is bytes of int8
        activations. With a `board` ("esp32", "nrf52840" or a .toml file) there are also
        `flash` (bytes) and `latency_ms` (estimated). Until a network is fully trained, the
        front holds networks with shorter trainings (column `epochs`).
        """
        from nas.architecture.boards import find_board
        from nas.report import front_frame

        chosen = find_board(str(board)) if board is not None else None
        return front_frame(self._candidates, chosen)

    def trials(self) -> pd.DataFrame:
        """Return all trials, one row each: `nas front --all`.

        The columns are those of `front`, and `state` (running, complete, pruned or failed),
        `reason`, `metric` (what `val_accuracy` is), `seconds` (of all of a candidate's
        trainings), and `decisions` (the sampler's decisions, as JSON).
        """
        from nas.report import trials_frame

        return trials_frame(self._candidates, self._decisions, self.settings.metric)

    def plot(self) -> go.Figure:
        """Return a plotly figure of all trials and the front: accuracy against parameters."""
        from nas.report import front_figure

        return front_figure(
            self._candidates,
            param_budget=self.settings.param_budget,
            title=title_of(self.settings),
            accuracy=self.settings.accuracy_name,
        )

    @in_python
    def best(
        self,
        *,
        max_params: int | None = None,
        min_accuracy: float | None = None,
        finalists: int = 4,
        metric: Metric | None = None,
        recipe: str | Path | None = None,
        augment: str | Sequence[str] | None = None,
        epochs: int | None = None,
        seeds: int = 1,
        data: Data | str | Path | None = None,
        data_dir: str | Path | None = None,
        workers: int | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> Trained:
        """Train the winner and measure its test accuracy: `nas best`.

        - `max_params`: cap on the winner's parameters, by default the study's.
        - `min_accuracy`: take the smallest network with this validation accuracy (0 to 1),
          instead of the most accurate one.
        - `finalists`: number of contenders that are fully trained before the
          choice; six times as many are screened.
        - `metric`: selection metric, by default the study's.
        - `seeds`: how many times the winner is trained, each with another seed.
        - `epochs`: length of a training, by default the study's full training.
        - `recipe`, `augment`: as for `nas.search`, by default the study's. With others the
          candidates are trained again.
        - `data`: needed if the study's data was in memory and this is another process.
        - `data_dir`, `workers`, `device`, `progress`: as for `nas.search`.

        Nothing is written: see `Trained.save`.

        Raises StudyError if there is nothing to choose from or no network is accurate enough,
        DataError if the data is not the study's, UsageError for a value out of range.
        """
        numbers = checked(
            {
                "max_params": max_params,
                "min_accuracy": min_accuracy,
                "finalists": finalists,
                "metric": metric,
                "epochs": epochs,
                "seeds": seeds,
                "workers": workers,
                "progress": progress,
            }
        )
        limits = [numbers["max_params"] or self.settings.param_budget]
        wanted = RecipeChange(file=path_of(recipe), augment=augment)
        return self._best(limits, numbers, wanted, data, data_dir, device)[0]

    @in_python
    def best_front(
        self,
        *,
        sizes: Sequence[int] | None = None,
        finalists: int = 4,
        metric: Metric | None = None,
        recipe: str | Path | None = None,
        augment: str | Sequence[str] | None = None,
        epochs: int | None = None,
        seeds: int = 1,
        data: Data | str | Path | None = None,
        data_dir: str | Path | None = None,
        workers: int | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> list[Trained]:
        """Train a winner for each of several caps, largest first: `nas best --front`.

        `sizes` are the caps: by default the study's cap, half of it and so on, down to the
        smallest fully trained network. Everything else is as for `best`. Trainings that
        several caps need run once.

        Raises UsageError for sizes over the study's cap, and what `best` raises.
        """
        numbers = checked(
            {
                "finalists": finalists,
                "metric": metric,
                "epochs": epochs,
                "seeds": seeds,
                "workers": workers,
                "progress": progress,
            }
        )
        limits = caps(self._candidates, self.settings, sizes)
        wanted = RecipeChange(file=path_of(recipe), augment=augment)
        return self._best(limits, numbers, wanted, data, data_dir, device)

    def _best(
        self,
        limits: Sequence[int],
        numbers: dict[str, Any],
        recipe: RecipeChange,
        data: Data | str | Path | None,
        data_dir: str | Path | None,
        device: str,
    ) -> list[Trained]:
        """Retrain a winner for each limit; ``numbers`` have been checked."""
        folder, name = path_of(data_dir), name_of(data)
        given = dataset_of(data, data_dir)
        if name is not None:
            given = load_dataset(name, folder)
        elif given is None and folder is None:
            given = self._data
        winners, dataset = run_best(
            self.settings,
            self._candidates,
            given,
            WorkersWanted(device=device, workers=numbers["workers"]),
            training_display(retraining_line, progress=numbers["progress"]),
            data_dir=folder,
            limits=limits,
            min_accuracy=numbers.get("min_accuracy"),
            finalists=numbers["finalists"],
            metric=numbers["metric"],
            recipe=recipe,
            epochs=numbers["epochs"],
            seeds=numbers["seeds"],
        )
        folders = winner_folders(winner_folder(self.folder), limits)
        return [
            Trained(
                winner.contender.architecture,
                winner.weights,
                winner.report,
                dataset,
                target,
            )
            for winner, target in zip(winners, folders, strict=True)
        ]


@in_python
def search(
    data: Data | str | Path | None = None,
    *,
    budget: int | None = None,
    trials: int = 200,
    data_dir: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    space: str | Path | None = None,
    recipe: str | Path | None = None,
    augment: str | Sequence[str] | None = None,
    max_macs: int | None = None,
    max_memory: int | None = None,
    max_flash: int | None = None,
    max_latency: str | None = None,
    epochs: int | None = None,
    start_from: Network | Sequence[Network] = (),
    sampler: Sampler | None = None,
    metric: Metric | None = None,
    pruning: bool | None = None,
    seed: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    engine: EngineName = "local",
    address: str | None = None,
    gpus_per_worker: float | None = None,
    time_limit: str | float | None = None,
    trial_time_limit: str | float | None = None,
    target_accuracy: float | None = None,
    study: str | None = None,
    studies: str | Path | None = None,
    storage: str | None = None,
    progress: bool = True,
) -> Study:
    """Search for networks, or resume a search: `nas search`.

    The same call again resumes the study, also after a crash.

    What to search on:

    - `data`: a `nas.Data`, or a name or path; by default mnist, or the study's own.
    - `data_dir`: folder with the files of a named data set.
    - `image_size`: size to which images in files are resized.

    What to find:

    - `budget`: hard cap on the trainable parameters of a network.
    - `max_macs`, `max_memory` (bytes), `max_flash` (bytes), `max_latency` ("esp32=5",
      milliseconds on a board): further hard caps.
    - `space`: name of a search space (by default mixed), or a .toml file.
    - `metric`: what networks are ranked by: "accuracy" (the default) or
      "balanced-accuracy", the mean over the classes. It replaces validation accuracy
      everywhere.

    How to search:

    - `trials`: total number of candidates of the study.
    - `epochs`: length of a full training.
    - `recipe`: TOML file with keys of the recipe.
    - `augment`: random changes of training images: "none", or some of "affine", "shift",
      "flip" and "crop", as a list or "shift,flip". The default depends on the data; see
      `settings.recipe`.
    - `start_from`: first candidates: modules, architectures, names or files. What they have
      and the space lacks is added to the study's own space.
    - `sampler`: "evolution" (the default) or "random".
    - `pruning`: False to disable the early stopping of candidates.
    - `seed`: seed of validation split, proposals and trainings.

    When to stop:

    - `time_limit` for the search, `trial_time_limit` for a training that hangs: seconds, or
      a text such as "1h30m".
    - `target_accuracy`: end when a fully trained network has this validation accuracy (0 to
      1).

    Where to run:

    - `workers`: number of workers, by default one per core, but at most 16 per GPU, or two
      without MPS; on Ray as many as fit.
    - `device`: auto, cpu, cuda or cuda:N.
    - `engine`: "local", or "ray" for a cluster at `address` ("HOST:PORT") with
      `gpus_per_worker` GPUs per worker.
    - `progress`: False to show no progress on the terminal or below the notebook's cell.

    Where to store:

    - `study`: name of the study, by default made of data set and cap.
    - `studies`: folder of the studies, by default the environment's NAS_STUDIES, or
      "studies".
    - `storage`: database URL of the trials, such as "postgresql://USER@HOST/DB", by default
      NAS_STORAGE, or a journal in the study's folder.

    study.toml stores the settings that affect the result. On a later call you may omit them;
    a different value is refused.

    Ctrl-C raises KeyboardInterrupt and leaves the study resumable. A script needs no
    `if __name__ == "__main__"`.

    Raises UsageError for a value out of range, DataError, SpaceError, StudyError,
    RecipeError, DeviceError and EngineError. All are NasError, with one line that says
    what, where and the remedy.
    """
    numbers = checked(
        {
            "budget": budget,
            "trials": trials,
            "max_macs": max_macs,
            "max_memory": max_memory,
            "max_flash": max_flash,
            "epochs": epochs,
            "sampler": sampler,
            "metric": metric,
            "pruning": pruning,
            "seed": seed,
            "workers": workers,
            "engine": engine,
            "gpus_per_worker": gpus_per_worker,
            "target_accuracy": target_accuracy,
            "progress": progress,
        }
    )
    if epochs is not None and epochs > SEARCH_EPOCHS:
        raise UsageError(f"--epochs {epochs}: give a whole number 1 to {SEARCH_EPOCHS}")
    given, name = dataset_of(data, data_dir), name_of(data)
    starts = (
        start_from
        if isinstance(start_from, Sequence) and not isinstance(start_from, str)
        else [start_from]
    )
    if given is None and name and any(isinstance(net, nn.Module) for net in starts):
        given = load_dataset(name, path_of(data_dir))
    shape = None if given is None else given.input_shape
    request = Request(
        studies=studies_folder(studies),
        study=study,
        dataset=name,
        data_dir=folder_of(data, data_dir),
        image_size=image_size_of(image_size),
        param_budget=numbers["budget"],
        max_macs=numbers["max_macs"],
        max_memory=numbers["max_memory"],
        max_flash=numbers["max_flash"],
        max_latency=max_latency,
        space=None if space is None else str(space),
        recipe=RecipeChange(file=path_of(recipe), augment=augment),
        epochs=numbers["epochs"],
        sampler=sampler,
        seed=numbers["seed"],
        pruning=pruning,
        metric=metric,
        storage=storage_url(storage),
        start_from=tuple(reference_of(net, shape) for net in starts),
    )
    wanted = WorkersWanted(
        device=device,
        workers=numbers["workers"],
        engine=engine,
        address=address,
        gpus_per_worker=numbers["gpus_per_worker"],
    )
    stored, outcome, dataset = run_search(
        request,
        wanted,
        search_display(progress=progress),
        trials=numbers["trials"],
        time_limit=time_limit,
        trial_time_limit=trial_time_limit,
        target_accuracy=numbers["target_accuracy"],
        data=given,
    )
    # The study that wrote the trials lacks the sampler's decisions.
    with read_study(stored.folder, request.storage) as found:
        return Study(found, data=dataset, outcome=outcome.reason)


@in_python
def open_study(
    name: str | None = None,
    *,
    studies: str | Path | None = None,
    storage: str | None = None,
) -> Study:
    """Open a study for reading, also while a search writes it.

    Without a `name`, the only study is opened. `studies` and `storage` are as for
    `nas.search`. Raises StudyError if there is no such study, or it is damaged.
    """
    folder = studies_folder(studies)
    stored = read_study(
        find_study(folder, name) if name is not None else only_study(folder),
        storage_url(storage),
    )
    try:
        return Study(stored)
    finally:
        stored.close()
