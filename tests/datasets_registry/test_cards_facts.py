"""Every card against the compiled facts, field by field; a digit of a hash or a label value that differs fails."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets_registry.cards import Card, list_cards, load_card
from datasets_registry.layouts.structures import match_structures
from datasets_registry.taxonomy import all_classes

FACTS = Path(__file__).parents[3] / "shared" / "datasets" / "facts.yaml"
PRIVATE = "private_cohort"  # the facts' name for what the card `local` reads
OWN = {"local", "totalsegmentator_example"}  # cards of ours that the facts do not speak of
SAMPLES = Path(__file__).parents[2] / "datasets_registry" / "cards"
NAMES = {info.index: info.name for info in all_classes()}

if not FACTS.is_file():
    pytest.skip(f"the compiled facts are absent ({FACTS})", allow_module_level=True)

DOCUMENT: dict[str, Any] = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
DATASETS: dict[str, dict[str, Any]] = {entry["id"]: entry for entry in DOCUMENT["datasets"] if entry["id"] != PRIVATE}


REWORDED = {
    "lits": {"13"},  # a count of the list beside it
    "abdomenct_1k": {"00773"},  # end of the range of 773 cases
    "msd_lung": {"12", "16", "17"},  # a count of paths; class numbers, which cards write as names; so in the next ones
    "msd_hepatic_vessel": {"15", "27", "29"},
    "abdomenct_12organ": {"25"},
    "btcv": {"60"},  # "60 and above" is 61 in the list of cases
}


def names(indices: list[int]) -> set[str]:
    return {NAMES[index] for index in indices}


def ids_of(text: str) -> list[int]:
    """Return the numbers of a list such as "2-14, 16-22, 24 (42 ids)"."""
    numbers: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text.partition("(")[0]):
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def numbers(ids: tuple[str, ...]) -> list[int]:
    return [int(one) for one in ids]


def meanings(labels: dict[Any, dict[str, Any]]) -> dict[int, tuple[list[str], tuple[str, str] | None]]:
    """Return value -> (classes, split pair) of the facts' labels."""
    return {
        int(value): (
            [NAMES[index] for index in meaning.get("to", [])],
            tuple(NAMES[index] for index in meaning["split"]) if meaning.get("split") else None,
        )
        for value, meaning in labels.items()
    }


def declared(card: Card) -> dict[int, tuple[list[str], tuple[str, str] | None]]:
    return {value: (list(meaning.classes), meaning.split) for value, meaning in card.labels.items()}


def labels_of(entry: dict[str, Any]) -> dict[str, dict[Any, Any]]:
    """Return label variant -> value -> meaning as the facts state it."""
    if entry["id"] == "chaos_ct":
        return {"official": {1: entry["labels"]["nonzero"]}}
    if entry["id"] == "flare23_pool":
        return {"official": {**DATASETS["flare22"]["labels"], 14: entry["labels"][14]}}
    if entry["id"] == "pancreas_ct":
        return {name: variant["labels"] for name, variant in entry["label_variants"].items()}
    if entry["id"] == "btcv":
        official = entry["label_variants"]["official"]["labels"]
        duodenum = entry["label_variants"]["gibson_train_1_40"]["labels"]["as_official_plus"]
        return {"official": official, "gibson": {**official, **duodenum}}
    if entry["id"] == "kits":
        return {"kits23": entry["labels"], "kits21": entry["labels"], "kits19": entry["labels_kits19"]}
    return {"official": entry["labels"]} if "labels" in entry else {}


def hashes(node: Any) -> Iterator[tuple[str, str]]:
    """Yield (file name, digest) of every file anywhere in a part of the facts."""
    if isinstance(node, dict):
        for kind in ("md5", "sha256"):
            if isinstance(node.get(kind), str):
                yield node["name"], node[kind]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from hashes(part)


def test_every_data_set_of_the_facts_has_a_card_and_no_card_is_unknown() -> None:
    assert set(list_cards()) == set(DATASETS) | OWN


@pytest.mark.parametrize("card_id", DATASETS)
def test_identity_access_and_licence(card_id: str) -> None:
    card, entry = load_card(card_id), DATASETS[card_id]
    assert card.role == {"training": "train", "extra": "train", "external": "external"}[entry["role"]]
    assert card.access == entry["access_class"]
    assert (card.licence.spdx, card.licence.non_commercial) == (
        entry["licence"]["spdx"],
        entry["licence"]["non_commercial"],
    )
    assert card.landing_page == entry["source"]["landing_page"]
    assert card.citation.model_dump() == {
        "short": entry["citation"]["short"],
        "doi": entry["citation"]["doi"],
        "also": entry["citation"].get("also"),
    }


@pytest.mark.parametrize("card_id", DATASETS)
def test_counts(card_id: str) -> None:
    card, entry = load_card(card_id), DATASETS[card_id]
    for field in ("total", "labelled", "unlabelled", "train", "val", "test"):
        assert getattr(card.counts, field) == entry["counts"].get(field), field


@pytest.mark.parametrize("card_id", [name for name in DATASETS if labels_of(DATASETS[name])])
def test_label_values_and_their_classes(card_id: str) -> None:
    card = load_card(card_id)
    for variant, labels in labels_of(DATASETS[card_id]).items():
        assert declared(card.with_variant(variant)) == meanings(labels), variant
    assert set(card.variants) == set(labels_of(DATASETS[card_id]))


@pytest.mark.parametrize("card_id", ["totalsegmentator_v1", "totalsegmentator_v2"])
def test_masks_by_file_name(card_id: str) -> None:
    files = dict(DATASETS[card_id]["label_files"])
    if card_id == "totalsegmentator_v2":
        # the facts annotate no prostate_or_uterus here: an absent prostate would be read as an absent uterus
        files |= {name: to for name, to in DATASETS[card_id]["label_files_v2_only"].items() if name != "prostate"}
    expected = {name: [NAMES[index] for index in meaning["to"]] for name, meaning in files.items()}
    assert {label.name: list(label.classes) for label in load_card(card_id).labels.values()} == expected


def test_structures_of_ircadb_by_folder_name() -> None:
    card = load_card("ircadb_01")
    for folders, meaning in DATASETS["ircadb_01"]["label_folders"].items():
        spelled = re.findall(r"[a-z]+\d*\*?", folders)
        for folder in spelled:
            found, unmatched = match_structures([folder.replace("*", "1")], card)
            assert not unmatched, folder
            (label,) = (card.labels[value] for value in found)
            assert [*label.classes] == [NAMES[index] for index in meaning.get("to", [])], folder
            assert label.split == (tuple(NAMES[index] for index in meaning["split"]) if "split" in meaning else None)
    assert match_structures(["tumor"], card) == ({}, ["tumor"])  # patient 7; nobody decided what it is
    assert card.always_annotated == ("liver", "liver_tumor")


@pytest.mark.parametrize("card_id", [n for n in DATASETS if isinstance(DATASETS[n].get("annotated_classes"), list)])
def test_annotated_classes(card_id: str) -> None:
    assert set(load_card(card_id).annotated_classes) == names(DATASETS[card_id]["annotated_classes"])


def test_annotated_classes_of_the_variants() -> None:
    for variant, entry in DATASETS["pancreas_ct"]["label_variants"].items():
        card = load_card("pancreas_ct", variant=variant)
        assert set(card.annotated_classes) == names(entry["annotated_classes"])
        labelled = set(card.case_ids) - set(card.unlabelled_case_ids)
        assert sorted(map(int, labelled)) == sorted(set(ids_of(entry["case_ids"].replace("without", "("))) - {25, 70})
    btcv, gibson = load_card("btcv"), load_card("btcv", variant="gibson")
    entries = DATASETS["btcv"]["label_variants"]
    assert set(btcv.annotated_classes) == names(entries["official"]["annotated_classes"])
    assert set(gibson.annotated_in("0040", None)) == names(entries["gibson_train_1_40"]["annotated_classes"])
    assert set(gibson.annotated_in("0061", None)) == names(entries["gibson_test_61_80"]["annotated_classes"])
    kits19 = load_card("kits", variant="kits19")
    assert set(kits19.annotated_classes) == names(DATASETS["kits"]["annotated_classes_kits19"])


@pytest.mark.parametrize("card_id", DATASETS)
def test_split_pairs(card_id: str) -> None:
    expected = {tuple(NAMES[index] for index in pair) for pair in DATASETS[card_id]["lr_split"]}
    assert set(load_card(card_id).split_pairs) == expected


@pytest.mark.parametrize("card_id", DATASETS)
def test_digests_sizes_and_records_of_the_sources(card_id: str) -> None:
    card, entry = load_card(card_id), DATASETS[card_id]
    stated = set(hashes(entry["source"])) | set(hashes(entry.get("files", [])))
    if card_id == "btcv":
        stated |= {
            pair for pair in hashes(DATASETS["pancreas_ct"]["source"]) if pair[0] == "label_btcv_multiorgan.tar.gz"
        }
    if card_id == "pancreas_ct":
        stated = {pair for pair in stated if pair[0] != "label_btcv_multiorgan.tar.gz"}
    carried = {(s.name, digest) for s in card.sources for digest in (s.md5, s.sha256) if digest is not None}
    assert {digest for _, digest in carried} == {digest for _, digest in stated}
    text = yaml.safe_dump(entry)
    for source in card.sources:
        for value in (getattr(source, "record", None), getattr(source, "collection", None), source.bytes):
            assert value is None or str(value) in text or card_id == "btcv", value


@pytest.mark.parametrize("card_id", DATASETS)
def test_overlaps_and_tumour_free(card_id: str) -> None:
    card, entry = load_card(card_id), DATASETS[card_id]
    stated = set(entry.get("overlap", []))
    pairs = {(o["a"], o["b"]) for o in DOCUMENT["overlaps"]}
    both_ways = pairs | {(b, a) for a, b in pairs} | {(b, a) for a in DATASETS for b in DATASETS[a].get("overlap", [])}
    stated |= {b for a, b in both_ways if a == card_id}
    assert {overlap.dataset for overlap in card.overlaps} == stated
    assert set(card.tumour_free) == names(entry.get("pathology", {}).get("tumour_free", []))


def test_confidence_of_the_listed_overlaps() -> None:
    for stated in DOCUMENT["overlaps"]:
        found = [o for o in load_card(stated["a"]).overlaps if o.dataset == stated["b"]]
        assert [overlap.confidence for overlap in found] == [stated["c"]], stated


def test_case_lists() -> None:
    layout = {name: entry["layout"] for name, entry in DATASETS.items()}
    kits = {name: load_card("kits", variant=name) for name in ("kits23", "kits21", "kits19")}
    assert numbers(kits["kits23"].case_ids) == ids_of("0-299, 400-588")
    assert numbers(kits["kits21"].case_ids) == ids_of("0-299")
    assert numbers(kits["kits19"].case_ids) == ids_of("0-299")
    assert numbers(kits["kits19"].unlabelled_case_ids) == ids_of("210-299")
    assert numbers(load_card("chaos_ct").case_ids) == layout["chaos_ct"]["case_ids"]
    assert numbers(load_card("msd_liver").case_ids) == ids_of(layout["msd_liver"]["case_ids"])
    assert numbers(load_card("abdomenct_1k").unlabelled_case_ids) == DATASETS["abdomenct_1k"]["unlabelled_case_ids"]
    btcv = layout["btcv"]["case_ids"]
    assert numbers(load_card("btcv").case_ids) == ids_of(btcv["train"]) + ids_of(btcv["test"])
    gibson = load_card("btcv", variant="gibson")
    assert sorted(set(numbers(gibson.case_ids)) - set(numbers(gibson.unlabelled_case_ids))) == ids_of(btcv["gibson"])


def test_official_splits() -> None:
    amos, word = DATASETS["amos22_ct"]["layout"], DATASETS["word"]["layout"]
    assert numbers(load_card("amos22_ct").official_splits["val"]) == amos["val_ct_ids"]
    assert numbers(load_card("word").official_splits["val"]) == word["val_ids"]
    assert numbers(load_card("word").official_splits["test"]) == word["test_ids"]
    assert numbers(load_card("ct_org").official_splits["test"]) == list(range(21))


@pytest.mark.parametrize("card_id", DATASETS)
def test_every_quirk_of_the_facts_has_its_place(card_id: str) -> None:
    """Numbers that a quirk names (cases, sizes) are found in the card: nothing was lost on the way."""
    entry, text = DATASETS[card_id], (SAMPLES / f"{card_id}.yaml").read_text(encoding="utf-8")
    assert load_card(card_id).quirks
    for quirk in [*entry.get("quirks", []), *entry.get("extra_quirks", [])]:
        for number in set(re.findall(r"s\d{4}|\b\d{2,5}\b", quirk["fact"])) - REWORDED.get(card_id, set()):
            assert re.search(rf"(?<!\d)0*{number}(?!\d)", text), f"{number} of: {quirk['fact']}"


@pytest.mark.parametrize(
    ("test", "card_id", "change"),
    [
        (test_digests_sizes_and_records_of_the_sources, "msd_lung", lambda e: e["files"][0].update(md5="0" * 32)),
        (test_label_values_and_their_classes, "word", lambda e: e["labels"][3].update(to=[2])),
        (test_annotated_classes, "lits", lambda e: e["annotated_classes"].remove(27)),
        (test_counts, "kits", lambda e: e["counts"].update(labelled=488)),
        (test_identity_access_and_licence, "chaos_ct", lambda e: e["licence"].update(non_commercial=False)),
        (test_split_pairs, "ct_org", lambda e: e["lr_split"].pop()),
    ],
)
def test_the_comparison_sees_one_changed_fact(
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[[str], None],
    card_id: str,
    change: Callable[[dict[str, Any]], Any],
) -> None:
    changed = copy.deepcopy(DATASETS[card_id])
    change(changed)
    monkeypatch.setitem(DATASETS, card_id, changed)
    with pytest.raises(AssertionError):
        test(card_id)
