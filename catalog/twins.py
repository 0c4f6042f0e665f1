"""Find the copies of a scan among many by their slice profiles, and join the split groups of scans that are one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from imaging.fingerprint import FEATURES, MIN_SLICES, Profile

How = Literal["exact", "content", "declared"]

SPREAD = np.array([0.11, 0.11, 0.24, 0.06, 0.18, 0.06, 0.12, 0.15, 0.09, 0.10], dtype=np.float32)
"""Standard deviation of each figure between phantoms at one height: what a difference is measured in."""

SCAN_DISTANCE = 0.3
"""Largest distance between copies with the same slices, see `profile_distance`; docs/design/0008-twins.md."""

RESAMPLED_DISTANCE = 0.2
"""Largest distance, levels left out, where slices were stretched onto each other: such freedom brings strangers nearer.
Resampling blurs every edge alike, so it moves the level of a figure and hardly its course along the scan."""

RESAMPLED_LEVELS = 0.6
"""Largest distance, levels counted, of such copies."""

SCAN_CORRELATION = 0.95
"""Smallest correlation along the scan (median over figures) between copies: bodies of one build differ in that."""

KEYS = 64
"""Slices of each known scan that can be looked up, evenly along it."""

PROBES = 16
"""Slices of a scan that are looked up."""

NEIGHBOURS = 24
"""Known slices nearest to each probe that are believed to be it; at most `KEY_DISTANCE` away."""

KEY_DISTANCE = 1.0 * (FEATURES - 1) ** 0.5
"""In SPREAD, over all figures but the size, which resampling changes."""

MIN_HITS = 3
"""Probes that must lie on one line in a known scan before the two are compared."""

MIN_VOTES = 1.5
"""Sum of how alike they are, 0 to 1 each; between strangers seldom more, between copies seldom under 3."""

MIN_OVERLAP = 0.5
"""Share of the shorter scan that two copies must have in common."""

MAX_STEP = 12.0
"""Slices of one copy per slice of the other, at most."""

Slices = NDArray[np.int64]
"""Numbers of slices, from 0."""

_REFINE_BELOW = 0.8
_ALMOST_ONE = 1.25
_LATE_SHARE = 0.2
_BLOCK = 256
_MOVES = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, 5)]), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Match:
    """A copy found: its name, the distance of the profiles (0: the same), and slices of it per slice asked with.

    step: 1 or -1 (backwards) for the same slices, another number for resampled ones.
    """

    name: str
    distance: float
    step: float


@dataclass(frozen=True)
class _Line:
    """Slice z of the scan asked with lies at `step * z + start` of the known one."""

    step: float
    start: float

    def inverse(self) -> _Line:
        return _Line(1 / self.step, -self.start / self.step)


@dataclass(frozen=True, eq=False)
class _Hits:
    """Slices of two scans that look alike, in pairs, some of them by chance; alike: 0 to 1."""

    here: Slices
    there: Slices
    alike: NDArray[np.float64]


def profile_distance(one: Profile, other: Profile, *, levels: bool = True) -> float:
    """Return how far apart two profiles of equal length are, in `SPREAD`; infinite where too few slices show a body.

    The mean over figures of the median over slices, so that a few slices and one unsteady figure do not decide.
    levels: False leaves out what is the same in all slices. Of the first figure, the size in voxels, that is always
    left out: resampling within the slice changes it.
    """
    both = (one[:, 0] > 0) & (other[:, 0] > 0)
    either = (one[:, 0] > 0) | (other[:, 0] > 0)
    if int(both.sum()) < MIN_SLICES or both.sum() < 0.9 * either.sum():
        return float("inf")
    apart = (one[both] - other[both]) / SPREAD
    same = np.median(apart, axis=0)
    apart -= np.where(np.arange(FEATURES) == 0, same, 0) if levels else same
    return float(np.median(np.abs(apart), axis=0).mean())


def profile_correlation(one: Profile, other: Profile) -> float:
    """Return the correlation of two profiles of equal length along the scan, the median over figures; 0 if constant."""
    both = (one[:, 0] > 0) & (other[:, 0] > 0)
    a, b = (profile[both] - profile[both].mean(axis=0) for profile in (one, other))
    size = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return float(np.median(np.where(size > 1e-6, (a * b).sum(axis=0) / np.maximum(size, 1e-6), 0.0)))


class _KeyTree:
    """A k-d tree over slices of some scans; nothing is ever added to it."""

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self.names = list(profiles)
        slices = [_spread_over(profile, KEYS) for profile in profiles.values()]
        self.owner = np.repeat(np.arange(len(slices)), [len(chosen) for chosen in slices])  # of each key
        self.slice = np.concatenate([*slices, np.empty(0, dtype=np.int64)])
        keys = [_keys(profile[chosen]) for profile, chosen in zip(profiles.values(), slices, strict=True)]
        self._tree = cKDTree(np.concatenate([*keys, np.empty((0, FEATURES - 1))]))

    def nearest(self, wanted: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return pairs of row of `wanted` (n, FEATURES - 1) and key, and how alike they are, 0 to 1.

        The `NEIGHBOURS` nearest keys within KEY_DISTANCE.
        """
        if not self.names:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
        neighbours = range(1, NEIGHBOURS + 1)
        distance, found = self._tree.query(wanted, k=neighbours, distance_upper_bound=KEY_DISTANCE, workers=-1)
        row, nth = np.nonzero(found < len(self.owner))
        return row, found[row, nth], (1 - distance[row, nth] / KEY_DISTANCE) ** 2


class TwinIndex:
    """Profiles of many scans, each found again by any copy of it: flipped, cropped, re-typed, windowed or resampled.

    Slices are looked up in a k-d tree, those of scans put since it was built in a second, small one. Scans where
    several are found along one line are compared whole. Not safe for several threads at once. profiles: those known,
    by name, changed by `put` only.
    """

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}
        self._tree = _KeyTree({})
        self._late_tree: _KeyTree | None = None
        self._late: set[str] = set()  # put or forgotten since the tree was built

    def put(self, name: str, profile: Profile | None) -> None:
        """Add a scan, or replace what was known under its name; None only forgets it."""
        self._late.add(name)
        self._late_tree = None
        self.profiles.pop(name, None)
        if profile is not None:
            self.profiles[name] = profile

    def find(self, profile: Profile) -> list[Match]:
        """Return the known scans that `profile` is a copy of, the nearest first."""
        return next(self.find_each([profile]))

    def find_each(self, profiles: Sequence[Profile]) -> Iterator[list[Match]]:
        """Yield what `find` returns for each of many profiles, looked up together."""
        self._grow_trees()
        for start in range(0, len(profiles), _BLOCK):
            block = profiles[start : start + _BLOCK]
            candidates = self._candidates(block)
            for number, profile in enumerate(block):
                matches = [
                    match
                    for name, hits in candidates.get(number, ())
                    if (match := _compare(name, profile, self.profiles[name], hits)) is not None
                ]
                yield sorted(matches, key=lambda match: (match.distance, match.name))

    def _grow_trees(self) -> None:
        if len(self._late) > _LATE_SHARE * len(self._tree.names):
            self._tree, self._late_tree = _KeyTree(self.profiles), None
            self._late = set()
        if self._late_tree is None:
            self._late_tree = _KeyTree({name: self.profiles[name] for name in self._late & self.profiles.keys()})

    def _candidates(self, block: Sequence[Profile]) -> dict[int, list[tuple[str, _Hits]]]:
        """Return number in the block -> names of known scans that have slices like those of the profile."""
        probes = [_spread_over(profile, PROBES) for profile in block]
        query = np.repeat(np.arange(len(block)), [len(chosen) for chosen in probes])
        probe = np.concatenate(probes)
        wanted = np.concatenate([_keys(profile[chosen]) for profile, chosen in zip(block, probes, strict=True)])
        found: dict[int, list[tuple[str, _Hits]]] = {}
        for tree in (self._tree, self._late_tree):
            if tree is None:
                continue
            row, key, alike = tree.nearest(wanted)
            pair = query[row] * len(tree.names) + tree.owner[key]  # of profile and scan
            order = np.argsort(pair, kind="stable")
            pair, here, there, alike = pair[order], probe[row[order]], tree.slice[key[order]], alike[order]
            pairs, starts = np.unique(pair, return_index=True)
            for which, start, end in zip(pairs, starts, [*starts[1:], len(pair)][: len(pairs)], strict=True):
                number, owner = divmod(int(which), len(tree.names))
                if end - start < MIN_HITS or (tree is self._tree and tree.names[owner] in self._late):
                    continue
                hits = _Hits(here[start:end], there[start:end], alike[start:end])
                found.setdefault(number, []).append((tree.names[owner], hits))
        return found


def _spread_over(profile: Profile, count: int) -> Slices:
    """Return up to `count` slices that show a body, evenly along the scan."""
    shown = np.flatnonzero(profile[:, 0] > 0)
    return np.unique(shown[np.linspace(0, len(shown) - 1, min(count, len(shown))).round().astype(int)])


def _keys(slices: Profile) -> NDArray[np.float64]:
    """Return what slices are looked up by, (n, FEATURES - 1) in SPREAD: all figures but the size in voxels."""
    return (slices[:, 1:] / SPREAD[1:]).astype(np.float64)


def _compare(name: str, profile: Profile, known: Profile, hits: _Hits) -> Match | None:
    """Return the match of a profile and a known scan where they are copies, None where not."""
    line = _line_through(hits, 1.5 * max(1.0, len(known) / KEYS))
    if line is None or profile_distance(*_overlap(profile, known, line)) > _REFINE_BELOW:
        return None
    if 1 / _ALMOST_ONE < abs(line.step) < _ALMOST_ONE:  # the same slices, most likely
        same = _same_slices(profile, known, line)
        one, other = _overlap(profile, known, same)
        distance = profile_distance(one, other)
        if distance <= SCAN_DISTANCE and profile_correlation(one, other) >= SCAN_CORRELATION:
            return Match(name, distance, same.step)
    line = _refined(profile, known, line)
    one, other = _overlap(profile, known, line)
    distance = profile_distance(one, other)
    if (
        distance <= RESAMPLED_LEVELS
        and profile_distance(one, other, levels=False) <= RESAMPLED_DISTANCE
        and profile_correlation(one, other) >= SCAN_CORRELATION
    ):
        return Match(name, distance, line.step)
    return None


def _line_through(hits: _Hits, tolerance: float) -> _Line | None:
    """Return the line on which most of the hits lie, to `tolerance` slices of the known scan; None for too few."""
    here, there = hits.here, hits.there
    one, other = np.triu_indices(len(here), 1)
    across, along = there[other] - there[one], here[other] - here[one]
    usable = (np.abs(across) < MAX_STEP * np.abs(along)) & (np.abs(along) < MAX_STEP * np.abs(across))
    step = across[usable] / along[usable]
    if not len(step):
        return None
    start = there[one[usable]] - step * here[one[usable]]
    off = np.abs(step[:, None] * here + start[:, None] - there)  # (lines, pairs)
    close = np.maximum(1 - off / tolerance, 0) @ hits.alike
    best = int(np.argmax(close))
    on = off[best] <= tolerance
    if close[best] < MIN_VOTES or len(np.unique(here[on])) < MIN_HITS or len(np.unique(there[on])) < MIN_HITS:
        return None
    fitted = np.polyfit(here[on], there[on], 1)
    return _Line(float(fitted[0]), float(fitted[1])) if abs(fitted[0]) > 1 / MAX_STEP else None


def _overlap(profile: Profile, known: Profile, line: _Line) -> tuple[Profile, Profile]:
    """Return the slices of two scans that lie on each other, of equal number; none where the two share too little.

    The coarser scan's slices are taken as they are, and of the finer one what lies at them.
    """
    if abs(line.step) < 1:
        other, one = _overlap(known, profile, line.inverse())
        return one, other
    here = _inside(profile, known, line)
    if len(here) < max(MIN_SLICES, MIN_OVERLAP * min(len(profile), len(known) / abs(line.step))):
        return profile[:0], known[:0]
    return profile[here], _between(known, line.step * here + line.start)


def _inside(profile: Profile, known: Profile, line: _Line) -> Slices:
    here = np.arange(len(profile))
    there = line.step * here + line.start
    return here[(there > -0.01) & (there < len(known) - 0.99)]


def _between(profile: Profile, at: NDArray[np.floating[Any]]) -> Profile:
    """Return figures at places between slices, by linear interpolation; zeros beside an empty slice."""
    low = np.clip(np.floor(at + 1e-6).astype(np.int64), 0, len(profile) - 1)
    high = np.minimum(low + 1, len(profile) - 1)
    share = np.clip(at - low, 0, 1)[..., None].astype(np.float32)
    there = profile[low] * (1 - share) + profile[high] * share
    empty = (profile[low, 0] <= 0) | ((profile[high, 0] <= 0) & (share[..., 0] > 1e-6))
    return np.where(empty[..., None], np.float32(0), there)


def _same_slices(profile: Profile, known: Profile, line: _Line) -> _Line:
    """Return the line of step 1 or -1 near `line` that lays two scans best onto each other, slice on slice."""
    here = _inside(profile, known, line)
    if not len(here):
        return line
    step = 1.0 if line.step > 0 else -1.0
    middle = here[len(here) // 2]
    start = round(line.step * middle + line.start - step * middle)
    reach = math.ceil(2 * max(1.0, len(known) / KEYS))
    starts = np.arange(start - reach, start + reach + 1.0)
    here = here[np.linspace(0, len(here) - 1, min(KEYS, len(here))).round().astype(int)]
    return _Line(step, float(starts[_most_alike(profile, known, here, step * here + starts[:, None])]))


def _refined(profile: Profile, known: Profile, line: _Line) -> _Line:
    """Return the line near `line` that lays two scans best onto each other: both its ends are moved, ever less."""
    if abs(line.step) < 1:
        return _refined(known, profile, line.inverse()).inverse()
    here = _inside(profile, known, line)
    here = here[np.linspace(0, len(here) - 1, min(KEYS, len(here))).round().astype(int)]
    ends = line.step * here[[0, -1]] + line.start
    along = (here - here[0]) / (here[-1] - here[0])
    reach = 2 * max(1.0, len(known) / KEYS)
    while reach > 0.05:
        tried = ends + _MOVES * reach  # (lines, 2)
        there = tried[:, :1] + (tried[:, 1:] - tried[:, :1]) * along
        ends = tried[_most_alike(profile, known, here, there)]
        reach /= 3
    step = (ends[1] - ends[0]) / (here[-1] - here[0])
    return _Line(float(step), float(ends[0] - step * here[0]))


def _most_alike(profile: Profile, known: Profile, here: Slices, there: NDArray[np.float64]) -> int:
    """Return which row of `there` (n, len(here)) names the places of `known` most like the slices `here`."""
    apart = (profile[here] - _between(known, there)) / SPREAD
    apart[..., 0] -= np.median(apart[..., 0], axis=1, keepdims=True)
    unlike = np.minimum(np.abs(apart), 1).mean(axis=(1, 2))
    return int(np.argmin(unlike))


def joined_groups(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return, for every split group in a link, the smallest group that links lead to, directly or through others."""
    groups: DisjointSet = DisjointSet()
    for one, other in links:
        groups.add(one)
        groups.add(other)
        groups.merge(one, other)
    joined = {group: min(members) for members in groups.subsets() for group in members}
    return dict(sorted(joined.items()))
