"""A board's table for --max-latency, from times that you measured on the board.

Export a few nets of different kinds with `nas export --to c`, time net_classify() of each
on the board, and name each folder that was exported with its milliseconds. Three nets or
more: the fit has a rate for convolutions, depthwise convolutions and linear layers. ::

    python benchmarks/calibrate.py mine --mhz 64 best=81.5 small=20.1 separable=44.0

Prints a table for a .toml file, and on standard error how far each time is from the fit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from nas.architecture.boards import Board
from nas.architecture.cost import cost, layers
from nas.errors import NasError
from nas.export.trained import read_trained

KINDS = ("conv", "depthwise", "linear")
# A kind that takes no time to speak of in any of the nets gets this rate.
FASTEST = 1.0


def main() -> None:
    """Fit the rates and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="What to call the board.")
    parser.add_argument("times", nargs="+", metavar="FOLDER=MS")
    parser.add_argument("--mhz", type=float, required=True)
    arguments = parser.parse_args()
    if arguments.mhz <= 0 or not arguments.name.isidentifier():
        parser.error("--mhz is a number above 0, the name letters, digits and '_'")
    nets, milliseconds = [], []
    for item in arguments.times:
        folder, _, time = item.rpartition("=")
        try:
            milliseconds.append(float(time))
            nets.append(read_trained(Path(folder)).architecture)
        except (ValueError, NasError) as error:
            parser.error(f"{item!r} is no FOLDER=MS: {error}")
    if len(nets) < len(KINDS):
        parser.error(f"give {len(KINDS)} nets or more, for as many rates")
    macs = np.array(
        [
            [sum(x.macs for x in layers(net) if x.operation == kind) for kind in KINDS]
            for net in nets
        ],
        dtype=float,
    )
    cycles = np.array(milliseconds) * arguments.mhz * 1000
    # Relative errors count: a slow net is measured no more exactly than a fast one.
    weights = 1 / cycles
    each, _ = nnls(macs * weights[:, None], cycles * weights)
    rates = [1 / one if one > 1 / FASTEST else FASTEST for one in each]
    conv, depthwise, linear = (float(f"{rate:.4g}") for rate in rates)
    board = Board(
        name=arguments.name,
        mhz=arguments.mhz,
        conv=conv,
        depthwise=depthwise,
        linear=linear,
    )
    print(f"[{board.name}]\nmhz = {board.mhz:g}")
    print(f"conv = {conv:g}\ndepthwise = {depthwise:g}\nlinear = {linear:g}")
    for net, measured, item in zip(nets, milliseconds, arguments.times, strict=True):
        fitted = cost(net, board).latency / 1e6
        print(
            f"{item}: fitted {fitted:.2f} ms, {fitted / measured - 1:+.1%}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
