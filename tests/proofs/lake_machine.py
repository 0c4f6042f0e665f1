"""A lake against a model of it: any order of steps, kills and looks back gives what a few dictionaries say."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from fault_shim import KILLS, Fault
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from interrupts import interrupted
from lake_steps import SHIPPED, Writer, bits_of, case_name, image_of, key_of, pseudo_classes
from zygote import Order, Zygote

from catalog.garbage import collect_garbage
from catalog.verify import verify

CASES = st.sampled_from("ab")
VERSIONS = st.sampled_from(sorted(SHIPPED))
PSEUDO = st.sampled_from(["pseudo-a", "pseudo-b"])
FROM_THE_END = st.one_of(st.integers(0, 24), st.integers(0, 220))
"""Which of a step's writing calls the kill comes at: most write arrays, the last ones commit."""


WITHDRAWING = ("withdraw", "restore")


@dataclass
class Model:
    """What the lake must show.

    history: of each case, oldest first, which version became its newest row, and whether withdrawn. labels: annotations
    by (case, version), whether that version is the current one or not.
    """

    history: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    labels: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def newest(self, case: str) -> tuple[int | None, bool]:
        """Return the newest version of a case, None for a case that never was, and whether the case is withdrawn."""
        return self.history[case][-1] if case in self.history else (None, False)

    def current(self) -> dict[str, int]:
        """Return the current version of every case that is in use."""
        return {case: rows[-1][0] for case, rows in self.history.items() if not rows[-1][1]}

    def ingest(self, case: str, version: int) -> bool:
        """Make a version the current one, unless it is, or the case is withdrawn; return whether that was new."""
        newest, withdrawn = self.newest(case)
        if withdrawn or newest == version:
            return False
        self.history.setdefault(case, []).append((version, False))
        self.labels.setdefault((case, version), set()).update({"shipped"} if SHIPPED[version] else ())
        return True

    def relabel(self, case: str, version: int, annotation: str) -> None:
        """Add an annotation to a version that is or was current."""
        self.labels[(case, version)].add(annotation)

    def withdraw(self, case: str) -> bool:
        """Take a case out of use; return whether it was in use."""
        return self._mark(case, withdrawn=True)

    def restore(self, case: str) -> bool:
        """Bring a withdrawn case back; return whether it was withdrawn."""
        return self._mark(case, withdrawn=False)

    def _mark(self, case: str, *, withdrawn: bool) -> bool:
        version, before = self.history[case][-1]
        if before != withdrawn:
            self.history[case].append((version, withdrawn))
        return before != withdrawn

    def compact(self) -> None:
        """Change nothing that anybody can see."""

    def gc(self) -> None:
        """Change nothing that anybody can see."""

    def shown(self) -> tuple[dict[str, str], set[tuple[str, str, str, str]]]:
        """Return the current cases with their keys, and the visible labels: case, key, annotation, class."""
        cases = {case_name(case): key_of(version) for case, version in self.current().items()}
        labels = {
            (case_name(case), key_of(version), annotation, name)
            for case, version in self.current().items()
            for annotation in self.labels[(case, version)]
            for name in (SHIPPED[version] if annotation == "shipped" else pseudo_classes(annotation))
        }
        return cases, labels


def shown_by(writer: Writer, at_versions: dict[str, int] | None = None) -> tuple[dict[str, str], Counter[Any]]:
    """Return what the tables show: current cases with their keys, and labels with how often each is there."""
    cases = writer.tables.cases(at_versions=at_versions)
    labels = writer.tables.labels(at_versions=at_versions)
    assert not cases["case_id"].duplicated().any(), f"a case twice: {cases['case_id'].tolist()}"
    columns = ["case_id", "ingest_key", "annotation", "class_name"]
    return (
        dict(zip(cases["case_id"], cases["ingest_key"], strict=True)),
        Counter(labels[columns].itertuples(index=False, name=None)),
    )


def order_of(root: Path, step: str, arguments: list[Any]) -> Order:
    """Return the order to carry out one step on the lake in `root`."""
    return Order("lake_steps:carry_out", {"root": str(root), "step": step, "arguments": arguments}, str(root))


def calls_of_steps(zygote: Zygote, folder: Path) -> dict[str, int]:
    """Return how many writing calls each step makes, counted on a lake in the empty `folder`; {} without the shim."""
    if zygote.preload is None:
        return {}
    calls, root = {}, folder / "lake"
    steps: list[tuple[str, list[Any]]] = [("ingest", ["b", 1]), ("ingest", ["a", 2]), ("relabel", ["a", 2, "pseudo-a"])]
    steps += [("withdraw", ["a"]), ("restore", ["a"]), ("compact", []), ("store", ["a", 1]), ("gc", [])]
    for number, (step, arguments) in enumerate(steps):
        log = folder / f"{number}.log"
        code = zygote.run(replace(order_of(root, step, arguments), fault=int(Fault.COUNT), log=str(log)))
        assert code == 0, f"{step} {arguments} failed undisturbed, exit code {code}"
        calls[step] = len(log.read_text().splitlines())
    return calls


class LakeMachine(RuleBasedStateMachine):
    """Steps on a real lake on disk, compared with `Model` after each. zygote, calls: set once for all examples.

    kills: how many processes were killed.
    """

    zygote: Zygote
    calls: ClassVar[dict[str, int]]
    kills = 0

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lake_"))
        self.writer = Writer(self.root)
        self.model = Model()
        self.moments: list[tuple[dict[str, int], Model]] = []

    def teardown(self) -> None:
        """Remove the lake."""
        shutil.rmtree(self.root)

    @initialize(case=CASES, version=VERSIONS)
    def begin(self, case: str, version: int) -> None:
        """Start with one case."""
        self.ingest(case, version)

    # --- steps that are left alone ---

    @rule(case=CASES, version=VERSIONS)
    def ingest(self, case: str, version: int) -> None:
        """A new case, the same again, another version of it, or an earlier version once more."""
        new = self.model.ingest(case, version)
        assert self.writer.ingest(case, version) == new

    @rule(case=CASES)
    def repeat_all(self, case: str) -> None:
        """The current version and all labels added to it once more, by somebody who did not look: nothing happens."""
        if case in self.model.current():
            version = self.model.current()[case]
            assert not self.writer.write_and_commit(case, version)
            for annotation in self.model.labels[(case, version)] - {"shipped"}:
                assert self.writer.relabel(case, version, annotation) == 0

    @rule(case=CASES, annotation=PSEUDO)
    def relabel(self, case: str, annotation: str) -> None:
        """An annotation added to the current version, or the same one again."""
        if case in self.model.current():
            self.remember()
            version = self.model.current()[case]
            new = annotation not in self.model.labels[(case, version)]
            assert self.writer.relabel(case, version, annotation) == (len(pseudo_classes(annotation)) if new else 0)
            self.model.relabel(case, version, annotation)

    @rule(case=CASES, back=st.booleans())
    def withdraw_or_restore(self, case: str, back: bool) -> None:
        """A case taken out of use, or brought back."""
        if case in self.model.history:
            changed = self.model.restore(case) if back else self.model.withdraw(case)
            step = self.writer.restore if back else self.writer.withdraw
            assert step(case) == ([case_name(case)] if changed else [])

    @rule()
    def compact(self) -> None:
        """Small files joined."""
        self.writer.compact()

    @rule(case=CASES, version=VERSIONS)
    def store_only(self, case: str, version: int) -> None:
        """Arrays that nobody commits: they are not there, and in nobody's way."""
        self.writer.store(case, version)

    @rule()
    def gc(self) -> None:
        """What no row names removed; versions that were superseded, and labels on them, are named."""
        self.writer.gc()
        assert self.writer.gc() == []
        self.read_everything()

    @rule()
    def reopen(self) -> None:
        """All that a process knew forgotten."""
        self.writer = Writer(self.root)

    @rule(case=CASES, one=VERSIONS, other=VERSIONS)
    def two_writers_at_once(self, case: str, one: int, other: int) -> None:
        """Two versions, or twice the same, committed while garbage is collected: one after the other, in any order."""
        before, withdrawn = self.model.newest(case)
        writers = [(Writer(self.root), one), (Writer(self.root), other)]
        with ThreadPoolExecutor(3) as threads:
            collecting = threads.submit(collect_garbage, self.writer.tables, self.writer.lake)
            done = list(threads.map(lambda pair: pair[0].write_and_commit(case, pair[1]), writers))
            collecting.result()
        if withdrawn:
            assert done == [False, False]
            return
        last = self._current(case)
        orders = [[one, other], [other, one]]
        possible = [order for order in orders if _after(before, order)[-1] == last]
        assert possible, f"{case}: version {last} is current after {one} and {other} were committed"
        for version in possible[0]:
            self.model.ingest(case, version)
        made = len(_after(before, possible[0])) - 1
        assert sum(done) == made or len({one, other}) == 2, f"{done} were told that they committed, {made} did"

    # --- steps that are cut off ---

    @rule(
        step=st.sampled_from(
            ["ingest", "ingest", "ingest", "relabel", "relabel", "compact", "gc", "withdraw", "restore"]
        ),
        case=CASES,
        version=VERSIONS,
        annotation=PSEUDO,
        fault=st.sampled_from(KILLS),
        from_the_end=FROM_THE_END,
    )
    def killed(self, step: str, case: str, version: int, annotation: str, fault: Fault, from_the_end: int) -> None:
        """A process killed at any of its writes: the step has happened, or it has not."""
        arguments = self._arguments(step, case, version, annotation)
        if arguments is None:
            return
        order = order_of(self.root, step, arguments)
        if self.calls:
            code = self.zygote.run_killed(order, fault, max(1, self.calls[step] - from_the_end))
        else:
            code = self.zygote.run_for(order, from_the_end / 500)
        assert code in (0, -9), f"{step} {arguments} failed by itself, exit code {code}"
        type(self).kills += code == -9
        self._happened_or_not(step, arguments, whole=code == 0)

    @rule(case=CASES, version=VERSIONS, from_the_end=FROM_THE_END)
    def killed_and_done_again(self, case: str, version: int, from_the_end: int) -> None:
        """The same ingest killed, and then done by a process that was there before."""
        self.killed("ingest", case, version, "pseudo-a", Fault.KILL_AFTER, from_the_end)
        self.ingest(case, version)

    @rule(
        step=st.sampled_from(["ingest", "ingest", "relabel", "compact", "gc", "withdraw"]),
        case=CASES,
        version=VERSIONS,
        annotation=PSEUDO,
        commits=st.booleans(),
        at=st.integers(1, 100),
    )
    def interrupted(self, step: str, case: str, version: int, annotation: str, commits: bool, at: int) -> None:
        """Ctrl-C at any step, in a process that goes on: the step has happened, or it has not."""
        arguments = self._arguments(step, case, version, annotation)
        if arguments is None:
            return
        with interrupted(commits, 1 + at % 4 if commits else at):
            getattr(self.writer, step)(*arguments)
        self._happened_or_not(step, arguments, whole=False)

    def _arguments(self, step: str, case: str, version: int, annotation: str) -> list[Any] | None:
        """Return what a step is called with; None for one on a case that is not there."""
        current = self.model.current().get(case)
        if (step == "relabel" and current is None) or (step in WITHDRAWING and case not in self.model.history):
            return None
        named = {
            "ingest": [case, version],
            "relabel": [case, current, annotation],
            "withdraw": [case],
            "restore": [case],
        }
        return named.get(step, [])

    def _happened_or_not(self, step: str, arguments: list[Any], whole: bool) -> None:
        after = deepcopy(self.model)
        getattr(after, step)(*arguments)
        if whole or self._matches(after):
            self.model = after

    # --- looks ---

    @rule()
    def remember(self) -> None:
        """Note the versions of the tables, as a run does."""
        self.moments.append((self.writer.tables.versions(), deepcopy(self.model)))

    @rule()
    def look_back(self) -> None:
        """The tables as every run saw them; the voxels it could have read are those of `read_everything`."""
        for versions, model in self.moments:
            assert _plain(shown_by(Writer(self.root), versions)) == model.shown()

    @rule()
    def read_everything(self) -> None:
        """Every voxel of every version of every case and label that ever was, and every file by its SHA-256."""
        lake, tables = self.writer.lake, self.writer.tables
        versions = {key_of(version): version for version in SHIPPED}
        for _, row in tables.cases(history=True).iterrows():
            expected = image_of(row["native_id"], versions[row["ingest_key"]])
            np.testing.assert_array_equal(lake.open_image(row).read(), expected)
        labels = tables.labels(history=True).drop_duplicates(["case_id", "ingest_key", "annotation"])
        for _, row in labels.iterrows():
            case = row["case_id"].removeprefix(case_name(""))
            expected = bits_of(row["annotation"], case, versions[row["ingest_key"]])
            np.testing.assert_array_equal(lake.open_bits(row, row["annotation"]).read(), expected)
        assert verify(self.writer.tables, self.writer.lake, read_data=True) == []

    @invariant()
    def lake_and_model_agree(self) -> None:
        """The point of it all."""
        cases, labels = shown_by(self.writer)
        assert all(count == 1 for count in labels.values()), f"labels twice: {labels}"
        assert (cases, set(labels)) == self.model.shown()
        history = self.writer.tables.cases(history=True)
        for case, expected in self.model.history.items():
            rows = history[history["case_id"] == case_name(case)]
            assert rows["ingest_key"].tolist() == [key_of(version) for version, _ in expected]
            assert rows["withdrawn"].notna().tolist() == [withdrawn for _, withdrawn in expected]
            assert rows["revision"].tolist() == list(range(1, len(expected) + 1))
            for version in SHIPPED:
                there = self.writer.tables.has(case_name(case), key_of(version))
                assert there == (self.model.newest(case)[0] == version)
        assert len(history) == sum(map(len, self.model.history.values()))
        assert verify(self.writer.tables, self.writer.lake) == []

    def _matches(self, model: Model) -> bool:
        return _plain(shown_by(Writer(self.root))) == model.shown()

    def _current(self, case: str) -> int | None:
        keys = {key_of(version): version for version in SHIPPED}
        found = Writer(self.root).tables.current_keys().get(case_name(case))
        return None if found is None else keys[found]


def _plain(shown: tuple[dict[str, str], Counter[Any]]) -> tuple[dict[str, str], set[Any]]:
    cases, labels = shown
    return cases, set(labels)


def _after(before: int | None, order: list[int]) -> list[int | None]:
    """Return the versions that are current in turn when those of `order` are committed one after the other."""
    seen = [before]
    for version in order:
        if seen[-1] != version:
            seen.append(version)
    return seen
