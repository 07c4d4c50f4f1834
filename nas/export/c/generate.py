"""Writes net.h, net.c, classify.c, Makefile and README.md of one int8 net.

kernels.c is the same for every net and runs one ``struct layer`` at a time. This module
writes the tables and the order of the calls.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import numpy as np

from nas.architecture.activations import ACTIVATIONS, SIGMOIDAL
from nas.architecture.cost import is_shaped
from nas.export.c.arena import arena_size, places
from nas.export.contract import contract
from nas.export.integer import TABLES, depthwise
from nas.export.integer_stages import Int8, Integers, IntegerStage, pad_of, resize_of
from nas.export.stages import Stage

_HERE = Path(__file__).parent
_WIDTH = 84
_LANES = 4  # as in kernels.c


def c_files(
    table: Sequence[IntegerStage],
    *,
    class_names: Sequence[str],
    summary: str,
) -> dict[str, str]:
    """Return the text of each file by its name.

    ``summary`` is a line about the network, for the top of net.c and the README.
    """
    shapes = any(
        is_shaped(one.padding, stage.float_stage.dilation)
        for stage in table
        for one in stage.float_stage.convolutions
    )
    groups = any(_is_grouped(stage.float_stage) for stage in table)
    poolings = [stage.early for stage in table if stage.early]
    overlaps = not all(pooling.plain for pooling in poolings)
    arrays = _Arrays(shapes, groups, overlaps)
    calls = list(_calls(table, arrays))
    shape = table[0].float_stage.input_shape
    kinds = {
        stage.activation_step.activation for stage in table if stage.activation_step
    }
    values = {
        "summary": _comment(summary),
        "contract": _wrapped(contract(shape)),
        "channels": shape[0],
        "height": shape[1],
        "width": shape[2],
        "num_classes": table[-1].output_shape[0],
        "logit_bits": table[-1].logit_bits,
        "arena": arena_size(table),
        "has_activation": int(bool(kinds)),
        "activations": "\n".join(
            f"#define NET_HAS_{name.upper()} {int(name in kinds)}"
            for name in ACTIVATIONS
        ),
        "has_sigmoidal": int(not SIGMOIDAL.isdisjoint(kinds)),
        "has_shapes": int(shapes),
        "has_groups": int(groups),
        "has_overlaps": int(overlaps),
        "has_resize": int(resize_of(table[0].float_stage) is not None),
        "has_pad": int(any(pad_of(stage.float_stage) for stage in table)),
        "has_gates": int(any(stage.float_stage.gates for stage in table)),
        "has_addition": int(any(stage.added for stage in table)),
        "has_depthwise": int(any(depthwise(stage) for stage in table)),
        "kernels": _kernels(),
        "arrays": "\n".join(arrays.text),
        "calls": "\n".join(calls),
        "classes": "\n".join(
            f"{number}. {_comment(name)}" for number, name in enumerate(class_names)
        ),
    }
    names = [path.name.removesuffix(".template") for path in _HERE.glob("*.template")]
    return {
        name: Template(
            (_HERE / f"{name}.template").read_text(encoding="utf-8")
        ).substitute(values)
        for name in names
    }


def _kernels() -> str:
    """Return kernels.c with its tables."""
    text = (_HERE / "kernels.c").read_text(encoding="utf-8")
    for name, table in TABLES.items():
        text = text.replace(f"@{name}@", _rows(map(str, table), "    "))
    return text


def _is_grouped(stage: Stage) -> bool:
    return stage.groups > 1 and not stage.depthwise


@dataclass
class _Arrays:
    """Constant arrays and layers; equal arrays are written once.

    With ``shapes`` each layer has the fields that only rectangular or dilated kernels
    need, with ``groups`` those that only grouped convolutions need, with ``overlaps``
    those of windows that overlap or are padded.
    """

    shapes: bool
    groups: bool
    overlaps: bool
    text: list[str] = field(default_factory=list)
    _names: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)

    def name(self, ctype: str, values: Integers | Int8, label: str) -> str:
        """Return the name of the array with these values; add it if it is new."""
        flat = tuple(int(value) for value in values.flatten())
        if (ctype, flat) not in self._names:
            self._names[ctype, flat] = label
            # C has no literal for the smallest 64-bit number; no value is that small.
            items = (f"INT64_C({v})" if ctype == "int64_t" else str(v) for v in flat)
            rows = _rows(items, "    ")
            self.text.append(
                f"static const {ctype} {label}[{len(flat)}] = {{\n{rows}\n}};"
            )
        return self._names[ctype, flat]


def _calls(table: Sequence[IntegerStage], arrays: _Arrays) -> Iterator[str]:
    """Yield the statements that run the layers, and add their tables to ``arrays``."""
    offsets = places(table)
    # The first input is the images, or the images in a lower resolution.
    first = int(resize_of(table[0].float_stage) is not None)
    for number, stage in enumerate(table, start=1):
        source = stage.float_stage
        at, to = offsets[number - source.takes], offsets[number]
        yield f"    /* {stage.name}: {_shape(stage)} */"
        if resize_of(source) is not None:
            sizes = (*source.input_shape, *source.output_shape[1:])
            numbers = ", ".join(map(str, sizes))
            yield f"    average(arena + {at}, arena + {to}, {numbers});"
        if (pad := pad_of(source)) is not None:
            channels, _, width = source.input_shape
            before = pad.stride, pad.before, stage.input_zero[0]
            numbers = ", ".join(
                map(str, (width, channels, *source.output_shape, *before))
            )
            yield f"    pad_channels(arena + {at}, arena + {to}, {numbers});"
        for index, convolution in enumerate(stage.convolutions):
            label = f"layer{number - 1}" + (
                chr(ord("a") + index) if len(stage.convolutions) > 1 else ""
            )
            _layer(
                stage,
                index,
                label,
                arrays,
                image=number - source.takes == first,
                added=offsets[number - source.adds] + convolution.start,
                gates=offsets[number - source.gates],
            )
            output = f"arena + {to + convolution.start}" if stage.output else "NULL"
            logits = "NULL" if stage.output else "logits"
            yield f"    run(&{label}, arena + {at}, {output}, {logits});"


def _layer(
    stage: IntegerStage,
    index: int,
    label: str,
    arrays: _Arrays,
    *,
    image: bool,
    added: int,
    gates: int,
) -> None:
    """Add a convolution's table and arrays.

    ``added`` and ``gates`` are their offsets in the buffer, if the stage has any.
    """
    convolution = stage.convolutions[index]
    outputs = len(convolution.weight)
    part = slice(convolution.start, convolution.start + outputs)
    in_shape, out_shape = stage.float_stage.input_shape, stage.output_shape
    planes = image and in_shape[0] > 1
    separate = depthwise(stage)
    shared = not stage.float_stage.convolutions
    part = slice(0, 1) if shared else part
    if separate:
        weight = convolution.weight.transpose(2, 3, 0, 1)
    else:
        parts = np.split(convolution.weight, stage.float_stage.groups)
        weight = np.concatenate([_by_fours(part, planes=planes) for part in parts])
    pool = stage.early or stage.late
    values: dict[str, object] = {
        "weight": arrays.name("int8_t", weight, f"{label}_weight"),
        "bias": arrays.name("int32_t", stage.sum_bias[part], f"{label}_bias"),
        "multiplier": arrays.name(
            "int32_t", stage.multiplier[part], f"{label}_multiplier"
        ),
        "zero": arrays.name("uint8_t", stage.input_zero, f"{label}_zero"),
        "in_h": in_shape[1],
        "in_w": in_shape[2],
        "in_c": in_shape[0],
        "out_h": out_shape[1],
        "out_w": out_shape[2],
        "out_c": outputs,
        "out_step": out_shape[0] if stage.output else 0,
        "kernel_h": convolution.weight.shape[2],
        "kernel_w": convolution.weight.shape[3],
        "window_h": pool.window[0] if pool else 1,
        "window_w": pool.window[1] if pool else 1,
        "stride": stage.float_stage.stride,
        "pad": convolution.padding[0],
        "depthwise": int(separate),
        "shared": int(shared),
        "planes": int(planes),
        "average": int(pool is not None and pool.kind == "avg"),
        "late": int(stage.late is not None),
        "out_zero": stage.output.zero if stage.output else 0,
        "up": stage.up,
        "shift": stage.shift,
    }
    if stage.added is not None:
        values |= {
            "added": f"arena + {added}",
            "added_multiplier": f"INT64_C({stage.added.multiplier})",
            "added_zero": stage.added.zero,
        }
    if arrays.shapes:
        values["pad_w"] = convolution.padding[1]
        values["dilation"] = stage.float_stage.dilation
    if arrays.groups and not separate:
        values["taken"] = convolution.weight.shape[1]
        values["given"] = outputs // stage.float_stage.groups
    if pool and arrays.overlaps:
        values["step_h"], values["step_w"] = pool.strides
        values["inset_h"], values["inset_w"] = pool.padding
    if stage.float_stage.gates:
        values["gates"] = f"arena + {gates}"
    if step := stage.activation_step:
        one_each = len(step.multiplier) > 1
        channels = part if one_each else slice(0, 1)
        offset = np.broadcast_to(step.offset, step.multiplier.shape)
        values |= {
            "second": arrays.name(
                "int32_t", step.multiplier[channels], f"{label}_second"
            ),
            "offset": arrays.name("int64_t", offset[channels], f"{label}_offset"),
            "activation": step.activation.upper(),
            "fraction": step.fraction,
            "second_shift": step.shift,
            "second_shared": int(not one_each),
        }
    items = _rows((f".{key} = {v}" for key, v in values.items() if v != 0), "    ")
    arrays.text.append(f"static const struct layer {label} = {{\n{items}\n}};")


def _by_fours(weight: Int8, *, planes: bool) -> Int8:
    """Return weights [O, I, kh, kw] with those of four outputs interleaved."""
    groups = []
    for start in range(0, len(weight), _LANES):
        group = weight[start : start + _LANES]
        taps = (1, 2, 3, 0) if planes else (2, 3, 1, 0)
        groups.append(group.transpose(taps).flatten())
    return np.concatenate(groups)


def _shape(stage: IntegerStage) -> str:
    source = stage.float_stage
    change = [
        "x".join(map(str, shape)) for shape in (source.input_shape, source.output_shape)
    ]
    return " -> ".join(change)


def _rows(items: Iterable[str], indent: str) -> str:
    """Return the items separated by commas, with as many per line as fit."""
    lines = [indent]
    for item in items:
        addition = f"{item}, "
        if len(lines[-1]) + len(addition) > _WIDTH and lines[-1] != indent:
            lines.append(indent)
        lines[-1] += addition
    return "\n".join(line.rstrip() for line in lines)


def _comment(text: str) -> str:
    """Return text that is safe in a C comment and in Markdown."""
    safe = "".join(letter if letter.isprintable() else " " for letter in text)
    return safe.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent="   ", break_on_hyphens=False)
