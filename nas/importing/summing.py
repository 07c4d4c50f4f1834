"""Blocks of several parts: from layers to the values of the block that they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas.architecture.kinds import KINDS
from nas.importing.convolutions import (
    check_plain,
    kernel_of,
    padding_of,
    stride_of,
)
from nas.importing.gating import gates_of
from nas.importing.layer import Layer
from nas.importing.refusals import GATES_PLACE, refuse

_SIDE_BY_SIDE = (
    "nas has two ways side by side only where one is nothing, zeros or a 1x1 convolution "
    "with batch norm and activation; the nearest is that"
)
Values = dict[str, Any]
Modules = tuple[nn.Module, ...]
Convolved = Callable[[list[Layer]], tuple[Values, Modules]]
"""Takes the layers of one convolution off the front of a list; says what they are."""


@dataclass(slots=True)
class _Run:
    """Convolutions and what follows them at once."""

    values: Values
    modules: Modules
    layer: Layer
    norm: Layer | None = None
    activation: Layer | None = None
    gates: Layer | None = None

    @property
    def layers(self) -> list[Layer]:
        """All of them, in their order."""
        following = (self.norm, self.activation, self.gates)
        return [self.layer, *(layer for layer in following if layer is not None)]


@dataclass(frozen=True, slots=True)
class Summed:
    """A block that adds: its values, what holds its weights, its last convolution."""

    values: Values
    modules: Modules
    norms: list[Layer]
    last: nn.Module


def summed(layer: Layer, convolved: Convolved, *, activated: bool) -> Summed:
    """Return the block that adds so; ``activated`` tells whether an activation follows.

    Raises ArchitectureError that names the layer that has no place in one.
    """
    if not layer.body:
        raise refuse(layer.name, "both ways of it lead from one layer; one is enough")
    for one in layer.shortcut:
        if one.kind not in {"convolution", "norm", "activation", "pad"}:
            raise refuse(one.name, _SIDE_BY_SIDE)
    found = depthwise_block(layer.body, activated=activated, added=True)
    if found is not None and found.count == len(layer.body):
        runs, values = found.runs, found.values
    else:
        runs = _runs(layer.body, convolved)
        values = _values(runs, layer)
    last = runs[-1]
    if last.activation is not None:
        raise refuse(
            last.activation.name,
            "nas adds a shortcut before the activation; the nearest is the activation "
            "behind the addition",
        )
    values["norm"] = "batch" if last.norm else "none"
    shortcut, stride = list[_Run](), 1
    if [one.kind for one in layer.shortcut] == ["pad"]:
        values["shortcut"], stride = "pad", _check_padding(layer)
    elif shortcut := _runs(layer.shortcut, convolved):
        values["shortcut"] = _shortcut_of(shortcut, values, last)
        stride = shortcut[0].values["stride"]
    else:
        values["shortcut"] = "identity"
    if stride != values["stride"]:
        raise refuse(
            layer.name,
            "its two sides differ in size; the nearest is one stride for both",
        )
    every = [*runs, *shortcut]
    norms = [run.norm for run in every if run.norm is not None]
    return Summed(values, _modules(every), norms, last.modules[-1])


def _modules(runs: Sequence[_Run]) -> Modules:
    return tuple(
        module
        for run in runs
        for module in (*run.modules, *(run.gates.modules if run.gates else ()))
    )


@dataclass(frozen=True, slots=True)
class DepthwiseBlock:
    """A block around a depthwise convolution at the front of some layers.

    ``count`` layers are its, without an activation behind the last convolution.
    """

    values: Values
    runs: list[_Run]
    count: int

    @property
    def modules(self) -> Modules:
        """The convolutions and what makes the gates."""
        return _modules(self.runs)

    @property
    def norms(self) -> list[Layer]:
        """The batch norms."""
        return [run.norm for run in self.runs if run.norm is not None]


def depthwise_block(
    layers: Sequence[Layer], *, activated: bool = False, added: bool = False
) -> DepthwiseBlock | None:
    """Return the inverted bottleneck or MobileNet block that the layers begin with.

    The latter has no expansion, and an activation behind it: at once, or ``activated``
    says so. Where nothing is ``added`` a 1x1 convolution that does not expand is a block
    of its own.
    """
    runs, count = list[_Run](), 0
    while len(runs) < 3 and (run := _plain_run(layers[count:])) is not None:
        runs.append(run)
        count += len(run.layers)
        if len(runs) > 1 and _separate(runs[-2]):
            break
    convs = [run.modules[0] for run in runs]
    if len(runs) < 2 or not (_separate(runs[-2]) and _pointwise(runs[-1])):
        return None
    *inner, last = runs
    if len(inner) == 2 and not _pointwise(inner[0]):
        return None
    first, middle = convs[0], convs[-2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(middle, nn.Conv2d)
    expansion, left_over = divmod(middle.in_channels, first.in_channels)
    for run, conv in zip(runs, convs, strict=True):
        assert isinstance(conv, nn.Conv2d)
        check_plain(conv, run.layer)
        padding_of(conv, run.layer)
    gates = inner[-1].gates
    if any(run.gates for run in (*inner[:-1], last)):
        return None
    names = {run.activation.value if run.activation else "none" for run in inner}
    activated = activated or last.activation is not None
    mobilenet = activated and len(inner) == 1
    alike = len({(run.norm is None, _biased(run)) for run in runs}) == 1
    # Else it is a separable block.
    anything = bool(last.norm or names != {"none"} or _biased(last) or gates)
    full = added and not activated and expansion == 1 and len(inner) == 2
    if (
        left_over
        or (expansion > 1 or full) != (len(inner) == 2)
        or (last.activation is not None and not mobilenet)
        or len(names) != 1
        or (mobilenet and last.activation and names != {last.activation.value})
        or not (alike and anything)
    ):
        return None
    plain = middle.in_channels == 1 and not gates
    if mobilenet and plain and (last.activation or middle.kernel_size == (1, 1)):
        # It is two plain convolutions, in an addition a residual block.
        return None
    (last_conv,) = last.modules
    assert isinstance(last_conv, nn.Conv2d)
    inverted = "full_bottleneck" if full else "inverted_bottleneck"
    values = {
        "kind": "mobilenet" if mobilenet else inverted,
        "out_channels": last_conv.out_channels,
        **kernel_of(middle),
        "stride": stride_of(middle, runs[-2].layer),
        "padding": padding_of(middle, runs[-2].layer),
        "expansion": expansion,
        "activation": names.pop(),
        "norm": "none" if last.norm is None else "batch",
        **(gates_of(gates, middle.in_channels) if gates else {}),
    }
    return DepthwiseBlock(values, runs, count - (last.activation is not None))


def _plain_run(layers: Sequence[Layer]) -> _Run | None:
    """Return one convolution, its norm, activation and gates that the layers begin with."""
    kinds = [layer.kind for layer in layers[:1]]
    if kinds != ["convolution"] or len(layers[0].modules) != 1:
        return None
    run = _Run({}, layers[0].modules, layers[0])
    rest = list(layers[1:4])
    if rest and rest[0].kind == "norm":
        run.norm = rest.pop(0)
    if rest and rest[0].kind == "activation":
        run.activation = rest.pop(0)
    if rest and rest[0].kind == "gates":
        run.gates = rest[0]
    return run


def _separate(run: _Run) -> bool:
    """Return whether each channel is convolved by itself."""
    (conv,) = run.modules
    assert isinstance(conv, nn.Conv2d)
    return conv.groups == conv.in_channels == conv.out_channels


def _pointwise(run: _Run) -> bool:
    (conv,) = run.modules
    assert isinstance(conv, nn.Conv2d)
    return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1


def _runs(layers: Sequence[Layer], convolved: Convolved) -> list[_Run]:
    left, runs = list(layers), list[_Run]()
    while left:
        first = left[0]
        if first.kind == "gates":
            raise refuse(first.name, GATES_PLACE)
        if first.kind != "convolution":
            raise refuse(
                first.name,
                f"within a residual addition nas has no {first.kind} at that place; the "
                "nearest is convolution, batch norm, activation, convolution, batch norm",
            )
        run = _Run(*convolved(left), first)
        if left and left[0].kind == "norm":
            run.norm = left.pop(0)
        if left and left[0].kind == "activation":
            run.activation = left.pop(0)
        runs.append(run)
    return runs


def _values(runs: list[_Run], layer: Layer) -> Values:
    """Return kind and sizes of what the runs are together."""
    last = runs[-1]
    if len(runs) == 1:
        return dict(last.values)
    kinds = [run.values["kind"] for run in runs]
    first = runs[0]
    if len(runs) == 2 and kinds == ["conv", "conv"]:
        sizes = {"out_channels": first.values["out_channels"], "stride": 1}
        if (
            last.values
            != first.values | sizes | {"out_channels": last.values["out_channels"]}
            or first.values["out_channels"] != last.values["out_channels"]
        ):
            raise refuse(
                last.layer.name,
                "the second convolution of a residual block is as the first, without "
                "stride",
            )
        if "groups" in first.values:
            raise refuse(
                first.layer.name,
                "within a residual block of two convolutions nas has no groups; the "
                "nearest is groups=1",
            )
        _check_between(first, last)
        return first.values | {
            "kind": "residual",
            "activation": first.activation.value if first.activation else "none",
        }
    if len(runs) == 3 and kinds == ["conv"] * 3:
        return _bottleneck(runs)
    raise refuse(
        layer.name,
        "nas adds to one convolution, to two of one size or to a bottleneck (1x1, 3x3, "
        f"1x1), this one adds to {len(runs)}; the nearest are these, or an inverted "
        "bottleneck (1x1, depthwise, 1x1, without activation behind the last)",
    )


def _bottleneck(runs: list[_Run]) -> Values:
    """Return kind and sizes of three convolutions, the outer ones 1x1."""
    first, middle, last = runs
    for run in (first, last):
        if not _pointwise(run):
            raise refuse(
                run.layer.name,
                "of three convolutions in an addition nas has the first and the last 1x1, "
                "without stride and groups; the nearest is that",
            )
    narrow, wide = first.values["out_channels"], last.values["out_channels"]
    expansion = wide // narrow
    if middle.values["out_channels"] != narrow or not (
        0 < expansion <= 64 and wide // expansion == narrow
    ):
        parts = (wide // expansion for expansion in range(1, 65))
        raise refuse(
            middle.layer.name,
            f"nas has a whole part of the {wide} channels of its output before and behind "
            f"it, at least a 64th; the nearest is {min(parts, key=lambda n: abs(n - narrow))}",
        )
    if "groups" in middle.values:
        raise refuse(
            middle.layer.name,
            "within a bottleneck nas has no groups; the nearest is groups=1",
        )
    _check_between(first, last)
    _check_between(middle, last)
    names = [run.activation.value if run.activation else "none" for run in runs[:2]]
    if names[0] != names[1]:
        raise refuse(
            middle.layer.name,
            "within a bottleneck nas has one activation, behind the first convolution and "
            f"behind this one; the nearest is {names[0]} behind both",
        )
    return middle.values | {
        "kind": "bottleneck",
        "out_channels": wide,
        "expansion": expansion,
        "activation": names[0],
    }


def _check_between(run: _Run, last: _Run) -> None:
    """Refuse a norm or a bias within the block that differs from the last one's."""
    if (run.norm is None) != (last.norm is None):
        bare = run if run.norm is None else last
        raise refuse(
            bare.layer.name,
            "within a residual block nas has batch norm behind each convolution, that of "
            "the shortcut, too, or behind none; the nearest is batch norm behind this one",
        )
    if _biased(run) != _biased(last):
        bare = last if _biased(run) else run
        raise refuse(
            bare.layer.name,
            "within a residual block all convolutions have a bias, or none; the nearest "
            "is the same for all",
        )


def _check_padding(layer: Layer) -> int:
    """Return the stride of a shortcut of zeros; refuse other zeros than nas has."""
    (pad,) = layer.shortcut
    stride, before, behind = pad.value
    more = before + behind
    if before != more // 2:
        raise refuse(
            pad.name,
            f"it puts {before} channels of zeros before and {behind} behind; the nearest "
            f"is half of them on each side, {more // 2} and {more - more // 2}",
        )
    return int(stride)


def _shortcut_of(shortcut: list[_Run], values: Values, last: _Run) -> str:
    """Return what nas calls the shortcut; refuse another than it has."""
    (run, *more) = shortcut
    (conv,) = run.modules[:1]
    plain = (
        run.values["kind"] == "conv" and conv.kernel_size == (1, 1) and conv.groups == 1
    )
    if more or not plain:
        raise refuse(run.layer.name, _SIDE_BY_SIDE)
    if (run.norm, run.activation) == (None, None) and (
        last.norm is not None or _biased(run) != _biased(last)
    ):
        return "bias_conv" if _biased(run) else "bare_conv"
    _check_between(run, last)
    if run.activation is None:
        return "conv"
    found = run.activation.value
    inside = values.setdefault("activation", found)
    if found != inside:
        raise refuse(
            run.activation.name,
            f"nas has in a shortcut the activation of its block; the nearest is {inside}",
        )
    return "activated_conv"


def _biased(run: _Run) -> bool:
    return getattr(run.modules[-1], "bias", None) is not None


def finish_of_sum(
    first: Layer, following: dict[str, Layer], values: Values, monotone: set[str]
) -> Values:
    """Return what stands behind an addition, in the order that nas has there."""
    kinds = [kind for kind in following if kind != "dropout"]
    activation = following.get("activation")
    if kinds == ["pool", "activation"] and (
        following["pool"].value.kind != "max"
        or (activation is not None and activation.value not in monotone)
    ):
        raise refuse(
            following["pool"].name,
            "behind an addition nas has the activation, then the pooling",
        )
    found = activation.value if activation else "none"
    if KINDS[values["kind"]].linear:
        if activation is not None:
            raise refuse(
                activation.name, "in nas an inverted bottleneck ends without it"
            )
        return {}
    inside = values.get("activation", found)
    if found != inside:
        name = (activation or first).name
        if inside == "none":
            raise refuse(
                name,
                "nas has it between the two convolutions, too; the nearest is that",
            )
        raise refuse(
            name,
            "within a residual block nas has the activation that stands behind the "
            f"addition; there is {inside} within and {found.replace('none', 'nothing')} "
            f"behind; the nearest is {inside} behind it",
        )
    return {"activation": found}
