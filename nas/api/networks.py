"""Trains and counts a network given as a torch module, an architecture or a name."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from nas.api.checks import checked
from nas.api.data import Data, dataset_of, name_of
from nas.api.progress import training_display, training_line
from nas.api.settings import path_of, storage_url, studies_folder
from nas.api.trained import Trained
from nas.api.training import run_train
from nas.api.words import in_python
from nas.api.workers import WorkersWanted
from nas.architecture import Architecture, Shape
from nas.data import load_dataset
from nas.errors import ArchitectureError
from nas.references.bundled import Reference
from nas.search.recipes import RecipeChange
from nas.search.resolve import Resolved, resolve

# While torch.fx follows a module, the modules of all threads call what it records.
_IMPORTING = threading.Lock()
Network = str | Path | nn.Module | Architecture | Reference
"""A module, an architecture, or a name as for `nas train`: NAME, FILE or STUDY:TRIAL."""


@in_python
def train(
    architecture: Network,
    data: Data | str | Path | None = None,
    *,
    epochs: int | None = None,
    seeds: int = 1,
    recipe: str | Path | None = None,
    augment: str | Sequence[str] | None = None,
    like_published: bool = False,
    data_dir: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    studies: str | Path | None = None,
    storage: str | None = None,
    progress: bool = True,
) -> Trained:
    """Train one network and measure its test accuracy: `nas train`.

    - `architecture`: a torch module, an `Architecture`, the name of a reference ("s0"), a
      .toml file, an architecture.json, or "STUDY:TRIAL". A module is converted to the layers
      that nas has and trained from new weights; it is not changed.
    - `data`: as for `nas.search`, by default the data set that the network was made for.
    - `recipe`, `augment`: as for `nas.search`. `epochs` replaces the recipe's.
    - `seeds`: how many times it is trained. The report has mean and standard deviation.
    - `like_published`: train a reference with its published recipe, and also report the best
      epoch on the test set.
    - `studies`, `storage`: where to find "STUDY:TRIAL".
    - `data_dir`, `workers`, `device`, `progress`: as for `nas.search`.

    Raises ArchitectureError for a module that nas cannot convert, naming the layer, and for a
    network that does not fit these images; RecipeError, DataError, StudyError, UsageError.
    """
    numbers = checked(
        {
            "epochs": epochs,
            "seeds": seeds,
            "like_published": like_published,
            "workers": workers,
            "progress": progress,
        }
    )
    folder, name = path_of(data_dir), name_of(data)
    given = dataset_of(data, data_dir)
    if isinstance(architecture, nn.Module) and given is None:
        given = load_dataset(name or "mnist", folder)
    network = reference_of(architecture, None if given is None else given.input_shape)
    found = (
        Resolved(network)
        if isinstance(network, Reference)
        else resolve(network, studies_folder(studies), storage_url(storage))
    )
    trained, dataset = run_train(
        found,
        name if given is None else given,
        WorkersWanted(device=device, workers=numbers["workers"]),
        training_display(training_line, progress=progress),
        data_dir=folder,
        recipe=RecipeChange(file=path_of(recipe), augment=augment),
        epochs=numbers["epochs"],
        seeds=numbers["seeds"],
        like_published=like_published,
    )
    return Trained(
        found.reference.architecture, trained.weights, trained.report, dataset
    )


@in_python
def count(
    architecture: Network,
    *,
    studies: str | Path | None = None,
    storage: str | None = None,
) -> int:
    """Return the number of trainable parameters, as the cap counts them.

    Of a module, every parameter with `requires_grad` counts once; running statistics of
    batch norm do not. Anything else is as for `nas.train`. Raises ArchitectureError for a
    module whose lazy layers have no shape yet, and for an unknown name.
    """
    if isinstance(architecture, nn.Module):
        parameters = list(architecture.parameters())
        if any(is_lazy(parameter) for parameter in parameters):
            raise ArchitectureError(
                "the module has lazy layers without a shape: call it once on an image, "
                "then count"
            )
        return sum(p.numel() for p in parameters if p.requires_grad)
    network = reference_of(architecture, None)
    if isinstance(network, str):
        place = studies_folder(studies), storage_url(storage)
        network = resolve(network, *place).reference
    return network.num_params


def reference_of(network: Network, input_shape: Shape | None) -> Reference | str:
    """Return the network as a reference, or its name if it must still be looked up.

    A module needs the shape of the images. Raises ArchitectureError for a module that
    is not a chain of nas's layers, and for an object that is not a network.
    """
    match network:
        case str() | Path():
            return str(network)
        case Reference():
            return network
        case Architecture():
            return Reference(name="architecture", architecture=network)
        case nn.Module() if input_shape is not None:
            return _imported(network, input_shape)
        case nn.Module():
            raise ArchitectureError(
                "a module does not say for which images it is: give --dataset"
            )
    raise ArchitectureError(  # for callers without a type checker
        f"a {type(network).__name__} is not a network: give a torch module, an Architecture, or "
        "a name"
    )


def _imported(module: nn.Module, input_shape: Shape) -> Reference:
    # torch.fx loads slowly
    from nas.importing import assemble, check_same, trace, unwrapped

    model = copy.deepcopy(
        unwrapped(module)
    ).cpu()  # a copy, as the check changes its weights
    with _IMPORTING:
        chain = trace(model, input_shape, shape_from="data with images of")
        architecture, _ = assemble(chain, input_shape)
        check_same(model, chain, architecture)
    name = type(model).__name__
    return Reference(
        name=name, architecture=architecture, source=f"the torch module {name}"
    )
