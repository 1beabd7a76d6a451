"""Random components under random test benches: both engines of `simulate` must see the same.

    python -m tests.sim.fuzz_simulate --components 2000 --seed 1

A component is that of its seed: `--components 1 --seed 1234` is the 1234th again.
"""

import argparse
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

from tests.sim.fuzz.batch import Batch
from tests.sim.fuzz.benches import Outcome, RandomBench
from tests.sim.fuzz.components import RandomComponent

BATCH = 40
REFUSED = "engine native"
"""What stands in every refusal."""


def outcome(engine: str, seed: int) -> Outcome:
    """What the simulation of a seed gives on an engine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange code, which is meant
        return RandomBench(RandomComponent(seed), seed).run(engine)


def outcomes(seeds: Iterable[int]) -> Iterator[tuple[int, Outcome, Outcome]]:
    """Each seed with what pysim gives and what native gives; compiled together."""
    batch, early = Batch(), {}
    for seed in seeds:
        early[seed] = batch.collect(seed, partial(outcome, "native", seed))
    batch.compile()
    for seed, refused in early.items():
        native = refused or batch.run(seed, partial(outcome, "native", seed))
        yield seed, outcome("pysim", seed), native


def difference(pysim: Outcome, native: Outcome) -> str | None:
    """The first thing that is not the same, None if all is, up to where something is refused."""
    for number, (expected, seen) in enumerate(zip(pysim.seen, native.seen, strict=False)):
        if expected != seen:
            return f"observation {number}:\n  pysim  {expected}\n  native {seen}"
    if pysim != native and REFUSED not in native.end:
        return f"the end:\n  pysim  {pysim.end}\n  native {native.end}"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Prints every difference, and how the simulations ended; 1 if there is a difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args(arguments)
    _tell(f"seed {options.seed}")
    seeds = range(options.seed, options.seed + options.components)
    ends: Counter[str] = Counter()
    for start in range(0, len(seeds), BATCH):
        for seed, pysim, native in outcomes(seeds[start : start + BATCH]):
            found = difference(pysim, native)
            if found:
                _tell(f"seed {seed}: {found}")
            ends["different" if found else _kind(native.end)] += 1
        _tell(f"{sum(ends.values())} of {len(seeds)}: {dict(ends.most_common())}")
    return min(ends["different"], 1)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _kind(end: str) -> str:
    if REFUSED in end:
        return "refused"
    return "alike" if end.endswith("cycles") else f"alike, {end.partition(':')[0]}"


if __name__ == "__main__":
    sys.exit(main())
