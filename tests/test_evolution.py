"""Proposals: in the space, under the caps, of the wanted size, and better than chance."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from nas.architecture import Architecture, Block, Head
from nas.architecture.cost import cost
from nas.candidates.ranking import Evidence, family_of
from nas.errors import SpaceError
from nas.sampling import surrogate
from nas.sampling.evolution import Evolution, EvolutionRule, Proposal
from nas.sampling.mutation import mutate
from nas.sampling.surrogate import Array, Surrogate, features
from nas.space import Caps, RandomDraws, available, encode, find_space, sample

SHAPE = (1, 28, 28)
CAP = 6000


def evolution(space: str = "mixed", cap: int = CAP, **rule: float) -> Evolution:
    """Return one that knows nothing yet, of a single fidelity."""
    return Evolution(
        find_space(space),
        input_shape=SHAPE,
        num_classes=10,
        caps=Caps(cap),
        levels=(1,),
        rule=EvolutionRule(**rule),  # type: ignore[arg-type]
    )


def wideness(architecture: Architecture) -> float:
    """Return a talent that has nothing to do with the size: many 5x5 kernels."""
    kernels = [block.kernel_size for block in architecture.blocks]
    return sum(kernel == 5 for kernel in kernels) / len(kernels)


def run(proposer: Evolution, trials: int, seed: int = 0) -> list[Proposal]:
    """Let it propose and learn from a made-up badness."""
    found = []
    for number in range(trials):
        size = (number * 0.618) % 1
        one = proposer.propose(
            number=number, attempt=0, size=size, seed=hash((seed, number))
        )
        costs = cost(one.architecture)
        bad = -0.7 * math.log(costs.num_params) - wideness(one.architecture)
        proposer.learn(
            one.architecture,
            Evidence(
                number,
                costs.num_params,
                costs.macs,
                {1: [bad]},
                family_of(one.architecture),
            ),
        )
        found.append(one)
    return found


class Kept:
    """Draws that were kept by their names."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return the number of that name."""
        del low, high
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return the whole number of that name."""
        return int(self.suggest_float(name, low, high))


@pytest.mark.parametrize("space", sorted(available()))
def test_every_proposal_is_in_the_space_and_under_the_cap(space: str) -> None:
    """Its draws make it again; also those that were changed and resized."""
    known = find_space(space)
    found = run(evolution(space, 3000), 60)
    assert {p.origin for p in found} >= {"random", "mutated"}
    for proposal in found:
        assert cost(proposal.architecture).num_params <= 3000
        again = sample(
            known,
            Kept(proposal.draws),
            input_shape=SHAPE,
            num_classes=10,
            caps=Caps(3000),
        )
        assert again == proposal.architecture
        assert proposal.parent is None or proposal.origin in {"mutated", "resized"}


def test_it_finds_more_of_what_is_good_than_random_draws_do() -> None:
    """Without giving up the sizes; and it goes on drawing at random."""
    late = run(evolution(), 120)[60:]
    chance = run(evolution(random=1.0, start=10_000), 120)[60:]
    mean = [
        sum(wideness(p.architecture) for p in some) / len(some)
        for some in (late, chance)
    ]
    assert mean[0] > mean[1] + 0.2
    assert sum(p.origin == "random" for p in late) >= 2
    sizes = [cost(p.architecture).num_params for p in late]
    assert min(sizes) < CAP / 8
    # A regular net with repeats grows in large steps.
    assert sum(size > 0.9 * CAP for size in sizes) >= len(sizes) // 10


def test_it_does_not_settle_on_one_structure() -> None:
    """Where nothing is better than anything else the depths stay spread."""
    proposer = evolution()
    depths: Counter[int] = Counter()
    for number in range(120):
        one = proposer.propose(
            number=number, attempt=0, size=(number * 0.618) % 1, seed=number
        )
        costs = cost(one.architecture)
        noise = random.Random(number).gauss(0, 0.1)
        bad = -0.7 * math.log(costs.num_params) + noise
        proposer.learn(
            one.architecture,
            Evidence(
                number,
                costs.num_params,
                costs.macs,
                {1: [bad]},
                family_of(one.architecture),
            ),
        )
        if number >= 60:
            depths[len(one.architecture.blocks)] += 1
    assert max(depths.values()) < 0.6 * sum(depths.values())


def test_it_begins_with_plain_nets_near_the_cap() -> None:
    """What anyone would draw by hand, before anything is known."""
    first = evolution().propose(number=0, attempt=0, size=0.1, seed=1)
    assert first.origin == "plain"
    assert [b.kernel_size for b in first.architecture.blocks] == [3, 3, 3]
    assert 0.85 * CAP < cost(first.architecture).num_params <= CAP


def test_small_images_are_halved_less_often_in_plain_nets() -> None:
    """On 8x8 images, too, a search begins with plain nets near the cap."""
    proposer = Evolution(
        find_space("mixed"),
        input_shape=(1, 8, 8),
        num_classes=10,
        caps=Caps(2000),
        levels=(1,),
    )
    for number in range(6):
        first = proposer.propose(number=number, attempt=0, size=0.1, seed=number)
        assert first.origin == "plain"
        assert cost(first.architecture).num_params > (1700 if number < 3 else 400)


def test_a_space_without_the_blocks_of_a_starter_draws_at_random_instead() -> None:
    """The space `plain` has no separable blocks, and `mobile` none of its kinds."""
    for space in ("plain", "mobile"):
        proposer = evolution(space)
        origins = [
            proposer.propose(number=n, attempt=0, size=0.5, seed=n).origin
            for n in range(6)
        ]
        assert origins[0] == "plain"
        assert origins[2] == "random"


def test_a_regular_net_has_all_blocks_but_the_first_alike() -> None:
    """But for where it downsamples; widths differ a little, so that it fills its size."""
    proposer = evolution(regular=1.0, at_cap=0.0)
    nets = [
        proposer.propose(number=8, attempt=0, size=0.9, seed=seed).architecture
        for seed in range(60)
    ]
    alike = [
        len({(b.kind, b.kernel_size) for b in net.blocks[1:]}) <= 1 for net in nets
    ]
    # Where an option does not fit, the nearest one is taken.
    assert sum(alike) > 50
    assert len({(n.blocks[-1].kind, n.blocks[-1].kernel_size) for n in nets}) > 5
    sizes = [cost(net).num_params for net in nets]
    assert sum(size > 0.75 * CAP**0.9 for size in sizes) > 45


def test_some_mutations_change_all_blocks_but_the_first() -> None:
    """So a regular net can become another regular one in one step."""
    known, caps = find_space("mixed"), Caps(CAP)
    block = Block(kind="separable", out_channels=12)
    blocks = (Block(out_channels=12, pool="max"), *[block] * 4)
    parent = Architecture(
        input_shape=SHAPE, num_classes=10, blocks=blocks, head=Head(kind="gap")
    )
    changed = Counter[int]()
    for seed in range(300):
        rng = random.Random(seed)
        child = mutate(known, parent, caps, num_params=2000, changes=1, rng=rng)
        if child is not None and len(child.blocks) == 5:
            others = [b.kernel_size for b in child.blocks]
            changed[sum(kernel != 3 for kernel in others)] += 1
    assert changed[1] > changed[4] > 3
    assert changed[2] == changed[3] == changed[5] == 0


@given(
    st.integers(0, 10_000),
    st.sampled_from(sorted(available())),
    st.sampled_from([400, 1500, 6000]),
    st.integers(0, 3),
)
@settings(max_examples=examples(60))
def test_a_mutation_stays_in_the_space_and_has_the_wanted_size(
    seed: int, space: str, wanted: int, changes: int
) -> None:
    """Under the wanted size and all caps; the draws beside it make it."""
    known = find_space(space)
    caps = Caps(CAP, macs=3_000_000)
    try:
        parent = sample(
            known, RandomDraws(seed), input_shape=SHAPE, num_classes=10, caps=caps
        )
    except SpaceError:
        return
    child = mutate(
        known,
        parent,
        caps,
        num_params=wanted,
        changes=changes,
        rng=random.Random(seed),
    )
    if child is None:
        return
    costs = cost(child)
    assert costs.num_params <= wanted
    assert costs.macs <= 3_000_000


def test_most_parents_can_be_changed() -> None:
    """A mutation that never stayed in the space would leave only random draws."""
    known = find_space("mixed")
    made = 0
    for seed in range(60):
        parent = sample(
            known, RandomDraws(seed), input_shape=SHAPE, num_classes=10, caps=Caps(CAP)
        )
        rng = random.Random(seed)
        child = mutate(known, parent, Caps(CAP), num_params=2000, changes=2, rng=rng)
        made += child is not None and encode(known, child, Caps(CAP)) is not None
    assert made >= 50


def test_the_surrogate_predicts_what_features_explain() -> None:
    """On architectures that it has not seen; and it knows what it does not know."""
    known = find_space("mixed")
    nets = [
        sample(
            known, RandomDraws(seed), input_shape=SHAPE, num_classes=10, caps=Caps(CAP)
        )
        for seed in range(160)
    ]
    rows = [features(net) for net in nets]
    talents = [0.2 * len(net.blocks) for net in nets]
    surrogate = Surrogate(rows[:120], talents[:120])
    mean, spread = surrogate.predict(rows[120:])
    errors = [abs(m - t) for m, t in zip(mean, talents[120:], strict=True)]
    guess = sum(talents[:120]) / 120
    blind = [abs(guess - t) for t in talents[120:]]
    assert sum(errors) < 0.5 * sum(blind)
    assert (spread > 0).all()


def test_of_a_large_study_the_surrogate_believes_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was found first is forgotten, not what was found last."""
    monkeypatch.setattr("nas.sampling.surrogate._MOST", 60)
    rng = np.random.default_rng(0)
    rows = [np.append(rng.normal(size=3), 0.0) for _ in range(120)]
    # The latest say the opposite of those before.
    talents = [row[0] * (-1 if place < 60 else 1) for place, row in enumerate(rows)]
    good, bad = np.array([1.0, 0, 0, 0]), np.array([-1.0, 0, 0, 0])
    mean, _ = Surrogate(rows, talents).predict([good, bad])
    assert mean[0] > 0.3 > -0.3 > mean[1]


def test_the_surrogate_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers have the others; the number from before is there again afterwards."""

    def threads() -> set[int]:
        # Those of numpy, not of what another test has loaded since.
        libraries = surrogate._blas.info()
        return {one["num_threads"] for one in libraries if one["user_api"] == "blas"}

    inverse, during = np.linalg.inv, set()

    def watched(matrix: Array) -> Array:
        during.update(threads())
        return inverse(matrix)

    monkeypatch.setattr(np.linalg, "inv", watched)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        Surrogate([np.ones(21), np.zeros(21)], [0.0, 1.0])
        assert (during, threads()) == ({1}, {2})
