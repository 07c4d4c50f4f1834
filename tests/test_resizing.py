"""A net widened or narrowed to a cap, in its own proportions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import Invoke
from hypothesis import example, given
from hypothesis import strategies as st
from nets import net_of
from strategies import architectures
from studying import one_line

from nas.architecture import Architecture
from nas.architecture.cost import cost, count_params
from nas.errors import ArchitectureError
from nas.references.bundled import available, find_reference
from nas.space import Caps, resize

# No block at all: the pooled channels of the image are the logits.
NO_BLOCKS = net_of(shape=(2, 4, 4), classes=2, head="pool")


@given(architectures(), st.integers(300, 30_000))
@example(NO_BLOCKS, 300)
def test_what_fits_is_at_or_under_the_cap_and_differs_in_width_alone(
    architecture: Architecture, budget: int
) -> None:
    """Whatever the blocks and the head; what no width makes fit is refused."""
    try:
        sized = resize(architecture, Caps(budget))
    except ArchitectureError:
        wide = count_params(resize(architecture, Caps(10**9)))
        assert wide > budget
        return
    assert count_params(sized) <= budget
    same_widths = tuple(
        replace(after, out_channels=before.out_channels)
        for before, after in zip(architecture.blocks, sized.blocks, strict=True)
    )
    assert replace(sized, blocks=same_widths) == architecture


@pytest.mark.parametrize("name", available())
def test_to_its_own_size_nothing_gets_narrower(name: str) -> None:
    """And to ten times the size proportions stay, to a channel or a third."""
    architecture = find_reference(name).architecture
    widths = [block.out_channels for block in architecture.blocks]
    own = resize(architecture, Caps(count_params(architecture)))
    assert all(b.out_channels >= w for b, w in zip(own.blocks, widths, strict=True))
    budget = 10 * count_params(architecture)
    grown = resize(architecture, Caps(budget))
    # The classifier's width is the number of classes.
    free = len(widths) - (architecture.head.kind == "pool")
    factors = [
        block.out_channels / width
        for block, width in zip(grown.blocks[:free], widths, strict=False)
    ]
    assert max(factors) / min(factors) < 4 / 3
    assert 0.8 * budget < count_params(grown) <= budget


def test_every_cap_holds() -> None:
    """Multiply-accumulates and memory narrow it, too."""
    architecture = find_reference("s4").architecture
    before = cost(architecture)
    caps = Caps(before.num_params, before.macs // 2, before.peak_memory // 3)
    sized = cost(resize(architecture, caps))
    assert caps.allow(sized)
    assert sized.peak_memory > before.peak_memory // 6


# --- from the command line --------------------------------------------------------


def test_the_file_can_be_trained_and_started_from(
    invoke: Invoke, tmp_path: Path
) -> None:
    """Its name and source say what it is."""
    result = invoke("resize", "s4", "--budget", 10_000)
    assert result.code == 0
    assert result.out.splitlines()[-1] == (
        "written to s4-10000.toml: `nas train s4-10000.toml` trains it"
    )
    written = find_reference(str(tmp_path / "s4-10000.toml"))
    assert 9_000 < written.num_params <= 10_000
    assert written.source == "s4, of 18,962 parameters, resized"
    assert invoke("resize", "s4-10000.toml", "--budget", 5_000).code == 0
    again = find_reference(str(tmp_path / "s4-10000-5000.toml"))
    assert 4_000 < again.num_params <= 5_000


def test_what_cannot_be_is_one_line(invoke: Invoke) -> None:
    """A cap that is too small, a name that is none, no cap at all."""
    result = invoke("resize", "s4", "--budget", 100)
    assert result.code == 1
    assert "at its narrowest it has 274 parameters" in one_line(result.err)
    result = invoke("resize", "s44", "--budget", 100)
    assert result.code == 1
    assert "s4" in one_line(result.err)
    result = invoke("resize", "s4")
    assert result.code == 2
    assert "--budget" in one_line(result.err)
