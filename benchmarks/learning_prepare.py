"""Make the study's file: phantoms as six data sets would ship them, brought onto one grid with their full truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning_data import Study, StudyScan, save_study
from datasets_registry.cards import Card, load_card
from datasets_registry.layouts import CaseFiles, RawCase
from datasets_registry.miniatures.case_scans import scan_of
from datasets_registry.miniatures.numbers import case_numbers, count_cases, native_id_of
from datasets_registry.miniatures.partial_labels import FLARE23_VALUES, label_of
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.twins import origin_of
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, get_channel
from imaging.metrics import dice
from imaging.resample import Grid, orient_ras, resample_bits
from tasks.harmonise import HarmonisedCase, harmonise

SPACING_MM = (6.0, 6.0, 6.0)
HU_KEPT = (-200, 275)
"""A little more than the network's window; what lies beyond is never seen, and takes room in the file."""
PATIENTS = 2023
"""Seed of the phantoms, that of the demo."""
LEAST_AGREEMENT = 0.99
"""DSC of a set's own label with the truth; lungs that touch are parted a little beside where they meet."""


@dataclass(frozen=True)
class SetPlan:
    """Which card, which of its label variants, and how many scans to train on."""

    card_id: str
    variant: str | None = None
    rare: bool = False


PLANS = (
    SetPlan("chaos_ct"),
    SetPlan("msd_spleen"),
    SetPlan("pancreas_ct", "official"),
    SetPlan("kits"),
    SetPlan("ct_org"),
    SetPlan("flare23_pool"),
    SetPlan("word", rare=True),
)
FLARE23_GROUP = 1
"""Cases of FLARE23's pool are annotated by different groups; these are the ones with vessels, adrenals and bowel."""


def prepare(path: Path, *, training: int, held_out: int, rare: int) -> Study:
    """Write the study's scans to `path` and return them.

    training, held_out: scans of each set; rare: those of the set that stands at the end of the long tail.
    Raises ValueError when a label brought onto the grid disagrees with the truth, or when two scans are one patient.
    """
    scans: list[StudyScan] = []
    seen: dict[tuple[str, int], str] = {}
    for plan in PLANS:
        card = load_card(plan.card_id, variant=plan.variant)
        count = rare if plan.rare else training
        numbers = list(islice(_numbers(card), count + held_out))
        if len(numbers) < count + held_out:
            raise ValueError(f"{card.id}: {len(numbers)} scans, {count + held_out} asked for; ask for fewer")
        for place, number in enumerate(numbers):
            origin = origin_of(card.id, number)
            patient = (card.id, number) if origin is None else (origin.card_id, origin.number)
            where = f"{card.id}/{native_id_of(card, number)}"
            if patient in seen:
                raise ValueError(f"{where}: the patient of {seen[patient]}; choose other numbers")
            seen[patient] = where
            scans.append(_scan(card, number, held_out=place >= count))
    study = Study(tuple(scans), SPACING_MM)
    save_study(path, study)
    return study


def _numbers(card: Card) -> Iterator[int]:
    doubted = {one for rule in card.unreliable_spacing for one in rule.case_ids}
    for number in case_numbers(card, min(100, count_cases(card))):
        if native_id_of(card, number) in doubted:
            continue
        if card.id == "flare23_pool" and (number - 1) % len(FLARE23_VALUES) != FLARE23_GROUP:
            continue
        yield number


def _scan(card: Card, number: int, *, held_out: bool) -> StudyScan:
    scan = scan_of(card, number, PATIENTS)
    native_id = native_id_of(card, number)
    label = scan.image.with_array(label_of(scan.bits, card, number))
    present = frozenset(np.unique(label.array).tolist()) - {0} if card.annotation_rule == "present" else None
    raw = RawCase(scan.image, label, present_values=present)
    case = harmonise(raw, card, SPACING_MM, CaseFiles(card.id, native_id, ()))
    truth = _truth_on_grid(scan, case)
    where = f"{card.id}/{native_id}"
    _check(case, truth, where)
    image: NDArray[np.int16] = np.clip(case.image.array, *HU_KEPT).astype(np.int16)
    return StudyScan(where, card.id, case.annotated, held_out, np.ascontiguousarray(image), truth)


def _truth_on_grid(scan: Scan, case: HarmonisedCase) -> Bits:
    """Return the hidden truth (W, X, Y, Z) on the grid of the harmonised case, by the path that labels take."""
    words = [orient_ras(scan.image.with_array(word)) for word in scan.bits]
    stacked = np.stack([word.array for word in words])
    return np.ascontiguousarray(
        resample_bits(stacked, words[0].affine, Grid(case.image.shape, case.image.affine)), dtype=np.uint32
    )


def _check(case: HarmonisedCase, truth: Bits, where: str) -> None:
    """Raise ValueError when a label of the set is not the truth, so that training on the truth would be a gift."""
    for name in case.annotated:
        channel = class_info(name).channel
        agreement = 1.0 if case.bits is None else dice(get_channel(case.bits, channel), get_channel(truth, channel))
        if agreement < LEAST_AGREEMENT:
            raise ValueError(
                f"{where}: {name} of the label has DSC {agreement:.4f} with the truth, expected {LEAST_AGREEMENT}"
            )
