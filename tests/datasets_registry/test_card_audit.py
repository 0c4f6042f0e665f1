"""What verifying finds: contradictions between cards, facts to verify, downloads that are not what they were."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets_registry.card_audit import Finding, audit, class_sources, contradictions, missing, read_all, unverified
from datasets_registry.card_summary import coverage, summarise
from datasets_registry.cards import Card, load_card
from datasets_registry.raw_audit import audit_raw
from datasets_registry.sources.ledger import LEDGER, Ledger
from datasets_registry.sources.partial import Digests
from datasets_registry.taxonomy import class_names


def changed(card_id: str, **fields: Any) -> Card:
    return Card(**{**load_card(card_id).model_dump(), **fields})


def texts(findings: Any) -> list[str]:
    return [finding.text for finding in findings]


def test_the_packages_cards_contradict_nothing() -> None:
    cards, broken = read_all()
    assert broken == []
    assert [finding for finding in audit(cards) if finding.kind == "inconsistent"] == []
    assert len(cards) >= 23


def test_every_class_has_a_data_set_and_a_private_cohort_is_none() -> None:
    cards, _ = read_all()
    sources = class_sources(cards)
    assert list(sources) == list(class_names())
    assert all(sources.values())
    assert not any("local" in found for found in sources.values())
    assert sources["celiac_trunk"] == ["abdomenct_12organ"]
    assert "btcv" in sources["duodenum"]  # by its variant gibson
    without = [card for card in cards if card.id != "abdomenct_12organ"]
    assert "no data set annotates class celiac_trunk" in texts(contradictions(without))


def test_an_overlap_that_the_other_card_does_not_return_is_a_contradiction() -> None:
    one_sided = [load_card("lits"), changed("word", overlaps=[])]
    found = [finding for finding in contradictions(one_sided) if finding.card == "lits"]
    assert "names word, whose card does not name lits" in texts(found)
    assert "names 'ircadb_01', which has no card" in texts(found)


def test_numbered_overlaps_must_agree_case_by_case() -> None:
    overlaps = [overlap.model_dump() for overlap in load_card("ircadb_01").overlaps]
    for overlap in overlaps:
        if overlap["dataset"] == "lits":
            overlap["other_case_ids"] = ["29-48"]  # one further than the card of LiTS says
    found = texts(contradictions([load_card("lits"), changed("ircadb_01", overlaps=overlaps)]))
    assert "lits/28 = ircadb_01/1 is declared by one of the two cards only" in found


def test_counts_are_held_against_the_lists_of_ids() -> None:
    fewer = changed("lits", counts={"labelled": 118})
    (text,) = (text for text in texts(contradictions([fewer])) if "118" in text)
    assert text == "118 labelled cases, but the lists of ids give {'official': 131}"
    split = changed("word", counts={"val": 21})
    assert "21 cases in val, but official_splits lists 20" in texts(contradictions([split]))
    assert not any("labelled cases" in text for text in texts(contradictions([load_card("pancreas_ct")])))


def test_a_card_that_does_not_load_is_a_finding_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = yaml.safe_load(load_card("lits").model_dump_json())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**fields, "id": "own", "role": "training"}))
    reader = {**fields, "id": "odd", "layout": {**fields["layout"], "reader": "tarball"}}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(reader))
    monkeypatch.setenv("CTFACTORY_CARDS", str(tmp_path))
    cards, broken = read_all()
    assert {finding.card for finding in broken} == {"own", "odd"}
    assert any("role: Input should be 'train' or 'external' (found 'training')" in finding.text for finding in broken)
    assert any("no reader 'tarball'; known: nifti_pairs" in finding.text for finding in broken)
    assert "lits" in {card.id for card in cards}


def test_every_fact_below_seen_is_listed_with_its_level() -> None:
    found = list(unverified(load_card("lits")))
    assert Finding("lits", "tumour_free_cases.0", "unverified", "liver_tumor", "recalled") in found
    assert ("overlaps.1", "inferred", "ct_org") in {(one.field, one.level, one.subject) for one in found}
    assert not any(one.level == "seen" for one in found)
    assert list(unverified(load_card("local"))) == []


def test_nulls_are_listed_for_what_they_are() -> None:
    found = {(one.field, one.subject) for one in missing(load_card("btcv"))}
    assert found == {
        ("sources.0", "RawData.zip"),
        ("licence.spdx", ""),
        ("licence.non_commercial", ""),
        ("citation.doi", ""),
    }
    # a volatile archive has no digest by nature
    assert not any(one.field.startswith("sources") for one in missing(load_card("ircadb_01")))
    assert list(missing(load_card("msd_lung"))) == []


def test_a_summary_counts_what_is_open_and_writes_ranges() -> None:
    card = load_card("btcv")
    line = summarise(card, audit([card]))
    assert (line.class_ranges, line.labelled, line.variants) == ("1-13", 30, ("official", "gibson"))
    assert line.unverified == len([*unverified(card), *missing(card)])
    assert line.as_dict()["coverage"]["duodenum"] == "variant"


def test_coverage_tells_partial_labels_and_variants_apart() -> None:
    assert set(coverage(load_card("flare23_pool")).values()) == {"some cases"}
    ircadb = coverage(load_card("ircadb_01"))
    assert (ircadb["liver"], ircadb["liver_tumor"], ircadb["spleen"]) == ("every case", "every case", "some cases")
    gibson = coverage(load_card("btcv", variant="gibson"))
    assert (gibson["liver"], gibson["right_kidney"]) == ("every case", "some cases")


# ---- the raw zone --------------------------------------------------------------------------------------------------


def put(raw: Path, card_id: str, name: str, content: bytes, *, recorded: bool = True) -> Path:
    """Place a file among the downloads of a card, and record it as a fetch does."""
    path = raw / card_id / "downloads" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if recorded:
        md5, sha256 = (hashlib.new(kind, content).hexdigest() for kind in ("md5", "sha256"))
        ledger = Ledger(path.parent / LEDGER)
        ledger.record(name, path, Digests(len(content), md5, sha256), how="downloaded", url="https://x", etag=None)
    return path


def states(raw: Path, *cards: Card, read_data: bool = False) -> dict[str, str]:
    return {finding.file: finding.state for finding in audit_raw(raw, cards, read_data=read_data)}


def test_cards_that_were_never_fetched_say_nothing(tmp_path: Path) -> None:
    assert audit_raw(tmp_path, [load_card("lits")]) == []


def test_a_first_download_without_a_known_digest_is_to_be_noted(tmp_path: Path) -> None:
    put(tmp_path, "flare22", "FLARE22Train.zip", b"first")
    (finding,) = audit_raw(tmp_path, [load_card("flare22")])
    assert (finding.state, finding.is_wrong) == ("to be noted", False)
    assert finding.found == f"sha256 {hashlib.sha256(b'first').hexdigest()}"


def test_other_bytes_than_the_card_declares_are_wrong(tmp_path: Path) -> None:
    put(tmp_path, "msd_lung", "Task06_Lung.tar", b"another archive")
    findings = audit_raw(tmp_path, [load_card("msd_lung")])
    assert [finding.state for finding in findings] == ["different", "different"]  # sha256 and md5
    assert all(finding.is_wrong for finding in findings)
    assert "f782cd09da9cf7a3128475d4a53650d371db10f0427aa76e166fccfcb2654161 of the card" in findings[0].expected


def test_a_file_changed_after_its_download_is_seen_by_size_and_by_bytes(tmp_path: Path) -> None:
    flare = load_card("flare22")
    path = put(tmp_path, "flare22", "FLARE22Train.zip", b"first")
    path.write_bytes(b"longer than first")
    assert states(tmp_path, flare) == {"FLARE22Train.zip": "different"}
    path.write_bytes(b"fir5t")
    assert states(tmp_path, flare) == {"FLARE22Train.zip": "to be noted"}
    assert states(tmp_path, flare, read_data=True) == {"FLARE22Train.zip": "different"}


def test_files_gone_never_fetched_unrecorded_and_halfway_are_told_apart(tmp_path: Path) -> None:
    card = load_card("abdomenct_1k")
    put(tmp_path, card.id, "Mask.7z", b"x").unlink()
    put(tmp_path, card.id, "notes.txt", b"mine", recorded=False)
    put(tmp_path, card.id, "AbdomenCT-1K-ImagePart1.zip.part", b"half", recorded=False)
    put(tmp_path, card.id, "AbdomenCT-1K-ImagePart1.zip.part.json", b"{}", recorded=False)
    found = states(tmp_path, card)
    assert (found["Mask.7z"], found["notes.txt"]) == ("absent", "unrecorded")
    assert found["AbdomenCT-1K-ImagePart1.zip"] == "not fetched"
    assert not any(".part" in name for name in found)
    assert not any(finding.is_wrong for finding in audit_raw(tmp_path, [card]))
