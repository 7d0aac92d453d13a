"""How likely a place fits, by the places that did and those that did not."""

from __future__ import annotations

from ollama_sweep.core.surface.memory import HARDLY, SURELY, fitting
from ollama_sweep.core.surface.places import Found, Known, Place

GRID = [Place(number, ctx, batch) for number, (ctx, batch) in enumerate(
    (ctx, batch) for ctx in (1024, 2048, 4096, 8192) for batch in (64, 128, 256, 512))]  # fmt: skip
AT = {(place.num_ctx, place.num_batch): place for place in GRID}


def size(place: Place) -> int:
    return 10**9 + 100_000 * place.num_ctx + 10**6 * place.num_batch


def found(*places: tuple[int, int, Known], sized: bool = False) -> list[tuple[Place, Found]]:
    sizes = [size(AT[ctx, batch]) if sized else None for ctx, batch, _ in places]
    return [(AT[ctx, batch], Found(known, size_bytes=its))
            for (ctx, batch, known), its in zip(places, sizes, strict=True)]  # fmt: skip


def test_memory_grows_with_both_sizes() -> None:
    chance = fitting(GRID, found((4096, 128, Known.FITS), (4096, 256, Known.FAILED))).chance
    for place in GRID:
        index = place.position
        if place.num_ctx <= 4096 and place.num_batch <= 128:
            assert chance[index] >= SURELY
        if place.num_ctx >= 4096 and place.num_batch >= 256:
            assert chance[index] <= HARDLY


def test_sizes_that_the_engine_says_tell_of_places_that_lie_neither_below_nor_above() -> None:
    told = found((1024, 64, Known.FITS), (2048, 512, Known.FITS), (4096, 64, Known.FITS), (1024, 256, Known.FITS),
                 (8192, 512, Known.SPILLED), sized=True)  # fmt: skip
    chance = fitting(GRID, told).chance
    assert chance[AT[1024, 512].position] >= SURELY, "smaller than the largest that fits"
    assert chance[AT[8192, 64].position] > chance[AT[8192, 256].position] > chance[AT[8192, 512].position]


def test_what_is_spilled_can_be_loaded_and_does_not_fit() -> None:
    said = fitting(GRID, found((2048, 64, Known.FITS), (2048, 128, Known.SPILLED)))
    assert said.chance[AT[2048, 256].position] <= HARDLY
    assert said.loads[AT[2048, 128].position] >= SURELY


def test_a_failure_that_says_nothing_of_memory_changes_nothing() -> None:
    assert list(fitting(GRID, found((1024, 64, Known.TRIED))).chance) == list(fitting(GRID, []).chance)


def test_a_size_that_failed_twice_and_worked_nowhere_is_not_hoped_for() -> None:
    """Crashes, not memory: cells beside it, and those of a num_ctx that worked elsewhere, are as they were."""
    good = [(1024, 128, Known.FITS), (2048, 256, Known.FITS)]
    before = fitting(GRID, found(*good))
    twice = fitting(GRID, found(*good, (1024, 64, Known.TRIED), (2048, 64, Known.TRIED)))
    for place in GRID:
        said = twice.chance[place.position], twice.loads[place.position]
        as_before = before.chance[place.position], before.loads[place.position]
        assert said == ((HARDLY, HARDLY) if place.num_batch == 64 else as_before)
    worked = fitting(GRID, found(*good, *((1024, batch, Known.TRIED) for batch in (256, 512))))
    assert worked.chance[AT[1024, 64].position] == before.chance[AT[1024, 64].position]
