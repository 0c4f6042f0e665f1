"""Find the copies of a scan among many by their slice profiles, and join the split groups of scans that are one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from imaging.fingerprint import FEATURES, MIN_SLICES, Profile

How = Literal["exact", "content", "declared"]

SPREAD = np.array([0.11, 0.11, 0.24, 0.06, 0.18, 0.06, 0.12, 0.15, 0.09, 0.10], dtype=np.float32)
"""Standard deviation of each figure between phantoms at one height: what a difference is measured in."""

SLICE_DISTANCE = 0.7
"""Root mean square distance (in `SPREAD`) under which two slices may be one; loose, for it only names candidates."""

SCAN_DISTANCE = 0.3
"""Largest distance between copies, see `profile_distance`; measured in docs/design/0008-twins.md."""

SCAN_CORRELATION = 0.95
"""Smallest correlation along the scan (median over figures) between copies: bodies of one build differ in that."""

PROBES = 12
"""Slices of a scan that are looked up."""

MIN_HITS = 3
"""Probes that must be found in a scan at one shift before the two are compared."""

MIN_OVERLAP = 0.5
"""Share of the shorter scan's slices that two copies must have in common."""

_BLOCK = 2**16


@dataclass(frozen=True)
class Match:
    """A copy found: its name, the distance of the profiles (0: the same), and whether its slices run backwards."""

    name: str
    distance: float
    backwards: bool


def profile_distance(one: Profile, other: Profile) -> float:
    """Return how far apart two profiles of equal length are, in `SPREAD`; infinite where too few slices show a body.

    The mean over figures of the median over slices, so that a few slices and one unsteady figure do not decide.
    """
    both = (one[:, 0] > 0) & (other[:, 0] > 0)
    either = (one[:, 0] > 0) | (other[:, 0] > 0)
    if int(both.sum()) < MIN_SLICES or both.sum() < 0.9 * either.sum():
        return float("inf")
    return float(np.median(np.abs(one[both] - other[both]) / SPREAD, axis=0).mean())


def profile_correlation(one: Profile, other: Profile) -> float:
    """Return the correlation of two profiles of equal length along the scan, the median over figures; 0 if constant."""
    both = (one[:, 0] > 0) & (other[:, 0] > 0)
    a, b = (profile[both] - profile[both].mean(axis=0) for profile in (one, other))
    size = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return float(np.median(np.where(size > 1e-6, (a * b).sum(axis=0) / np.maximum(size, 1e-6), 0.0)))


class TwinIndex:
    """Profiles of many scans, each found again by any copy of it: flipped, cropped, re-typed or windowed.

    Some slices of the scan asked for are compared with every slice known in one matrix product; scans where several
    are found at one shift are compared whole. Not safe for several threads at once.
    """

    def __init__(self) -> None:
        self._slices = np.empty((0, FEATURES), dtype=np.float32)  # in SPREAD, doubling in length when full
        self._half_norms = np.empty(0, dtype=np.float32)
        self._owner = np.empty(0, dtype=np.int32)
        self._filled = 0
        self._names: list[str | None] = []
        self._starts: list[int] = []
        self._number: dict[str, int] = {}

    def put(self, name: str, profile: Profile | None) -> None:
        """Add a scan, or replace what was known under its name; None only forgets it."""
        earlier = self._number.pop(name, None)
        if earlier is not None:
            self._names[earlier] = None
        if profile is None:
            return
        number, start, end = len(self._names), self._filled, self._filled + len(profile)
        self._make_room(end)
        scaled = profile / SPREAD
        self._slices[start:end] = scaled
        # an empty slice lies infinitely far from all others
        self._half_norms[start:end] = np.where(profile[:, 0] > 0, (scaled**2).sum(axis=1) / 2, np.inf)
        self._owner[start:end] = number
        self._filled = end
        self._names.append(name)
        self._starts.append(start)
        self._number[name] = number

    def find(self, profile: Profile) -> list[Match]:
        """Return the known scans that `profile` is a copy of, the nearest first."""
        best: dict[str, Match] = {}
        for number, shift, backwards in self._candidates(profile):
            name = self._names[number]
            if name is None:
                continue
            distance = self._compare(profile, number, shift, backwards=backwards)
            if distance <= SCAN_DISTANCE and (name not in best or distance < best[name].distance):
                best[name] = Match(name, distance, backwards)
        return sorted(best.values(), key=lambda match: (match.distance, match.name))

    def _candidates(self, profile: Profile) -> list[tuple[int, int, bool]]:
        """Return (scan, shift, backwards): slice z of `profile` lies at shift + z, or shift - z, of the scan."""
        shown = np.flatnonzero(profile[:, 0] > 0)
        probes = np.unique(shown[np.linspace(0, len(shown) - 1, PROBES).round().astype(int)])
        wanted = profile[probes] / SPREAD  # (P, FEATURES)
        half = (wanted**2).sum(axis=1) / 2
        limit = np.float32(SLICE_DISTANCE**2 * FEATURES / 2)
        slices, which = [], []
        for start in range(0, self._filled, _BLOCK):
            end = min(start + _BLOCK, self._filled)
            closeness = self._slices[start:end] @ wanted.T - self._half_norms[start:end, None]  # (n, P)
            found, probe = np.nonzero(closeness >= half - limit)
            slices.append(found + start)
            which.append(probe)
        if not slices:
            return []
        found, probe = np.concatenate(slices), np.concatenate(which)
        owner = self._owner[found].astype(np.int64)
        z = found - np.asarray(self._starts, dtype=np.int64)[owner]
        candidates = []
        for backwards in (False, True):
            shift = z + probes[probe] if backwards else z - probes[probe]
            pairs, hits = np.unique(np.stack([owner, shift]), axis=1, return_counts=True)
            good = pairs[:, hits >= min(MIN_HITS, len(probes))]
            candidates += [(int(number), int(shift), backwards) for number, shift in good.T]
        return candidates

    def _compare(self, profile: Profile, number: int, shift: int, *, backwards: bool) -> float:
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else self._filled
        known = self._slices[start:end] * SPREAD
        if backwards:  # slice z of the one lies at shift - z of the other, so at z + (length - 1 - shift) of its mirror
            known, shift = known[::-1], len(known) - 1 - shift
        first, last = max(0, -shift), min(len(profile), len(known) - shift)
        if last - first < max(MIN_SLICES, MIN_OVERLAP * min(len(profile), len(known))):
            return float("inf")
        here, there = profile[first:last], known[first + shift : last + shift]
        distance = profile_distance(here, there)
        if distance > SCAN_DISTANCE or profile_correlation(here, there) < SCAN_CORRELATION:
            return float("inf")
        return distance

    def _make_room(self, end: int) -> None:
        if end > len(self._slices):
            more = max(end, 2 * len(self._slices), 1024) - len(self._slices)
            self._slices = np.concatenate([self._slices, np.zeros((more, FEATURES), dtype=np.float32)])
            self._half_norms = np.concatenate([self._half_norms, np.full(more, np.inf, dtype=np.float32)])
            self._owner = np.concatenate([self._owner, np.zeros(more, dtype=np.int32)])


def joined_groups(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return, for every split group in a link, the smallest group that links lead to, directly or through others."""
    groups: DisjointSet = DisjointSet()
    for one, other in links:
        groups.add(one)
        groups.add(other)
        groups.merge(one, other)
    joined = {group: min(members) for members in groups.subsets() for group in members}
    return dict(sorted(joined.items()))
