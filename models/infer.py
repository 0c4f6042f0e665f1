"""Whole-scan prediction: overlapping windows, blended logits, thresholded slab by slab so that memory stays bounded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets_registry.taxonomy import class_info, class_names
from imaging.bits import Bits, empty_bits, words_for
from models.checkpoint import ModelMetadata
from models.cleaned import Cleaned
from models.infer_bits import Handover, Sink
from models.infer_network import Network, Query, Say, is_out_of_memory
from models.infer_progress import Meter, Reporter
from models.infer_scan import ArrayScan, Scan, busy_windows, read_slabs
from models.infer_scores import NotFiniteLogits, Scores, Tally
from models.infer_windows import Box, WindowGrid, gaussian_weight
from models.sampling import window_hu
from models.scores import MOST_VARIANTS, Agreement
from models.settings import ModelSettings, Precision
from models.universal import UniversalModel


@dataclass(frozen=True, eq=False)
class FreeText:
    """Things to look for that the model has no class for: what they are called, and one embedding each, (n, 512).

    The embeddings must be by the encoder of the model's classes; nothing was learnt about them.
    """

    titles: tuple[str, ...]
    rows: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The masks of a scan, (W, X, Y, Z) uint32 bits, and what else the model says about it.

    Bits are by taxonomy channel; free texts come behind the last class, in the order given. cleaned: what cleaning did
    to the bits, None as long as they are as the network gave them.
    """

    bits: Bits
    scores: Scores
    cleaned: Cleaned | None = None

    @property
    def mean_prob(self) -> dict[str, float]:
        """Mean probability of each class inside its mask; nan where the mask is empty."""
        return self.scores.mean_prob


@dataclass(frozen=True, eq=False)
class Slab:
    """Blended logits (C, x, y, z) float32 of a finished part of a scan, and where it lies. Valid until the next one."""

    box: Box
    logits: Tensor


class Predictor:
    """Predicts scans with one model, or with several of the same settings as an ensemble (see `Network`).

    overlap: share of a window that its neighbour repeats. device, batch, precision: see `Network`.
    variants: passes of each window besides the first, up to 4, of the scan shifted by a few voxels and brighter, darker
    or noisier (`scores.variant`): how far their masks agree is a score; the masks stay those of the first pass. One
    variant takes as long as the prediction itself, of its first model.
    Windows are weighted by a Gaussian; a voxel belongs to a class where the mean of its windows' logits is above 0.
    An image smaller than the window is surrounded by air. The network is not run on windows of nothing but air (no
    voxel above the model's HU window's lower end), which all look the same to it: it sees one of them, and the others
    get its logits. So the masks are those of running every window.
    """

    def __init__(
        self,
        models: UniversalModel | Sequence[UniversalModel],
        metadata: ModelMetadata | ModelSettings,
        *,
        overlap: float = 0.5,
        batch: int | None = None,
        device: str = "cpu",
        precision: Precision | None = None,
        variants: int = 0,
    ) -> None:
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap {overlap}: expected 0 <= overlap < 1")
        if not 0 <= variants <= MOST_VARIANTS:
            raise ValueError(f"variants {variants}: expected 0 to {MOST_VARIANTS}")
        self.settings = metadata if isinstance(metadata, ModelSettings) else metadata.model
        self.overlap = overlap
        members = [models] if isinstance(models, UniversalModel) else list(models)
        low, high = self.settings.hu_window
        self.network = Network(
            members, device=device, batch=batch, precision=precision, variants=variants, hu_span=high - low
        )

    def predict(
        self,
        scan: Scan,
        classes: Sequence[str] | None = None,
        free_text: FreeText | None = None,
        *,
        report: Reporter | None = None,
        say: Say | None = None,
    ) -> Prediction:
        """Return the masks of `scan`, int or float HU in RAS on the grid of the model's spacing, in memory.

        See `stream` for the arguments and for what is refused.
        """
        texts = () if free_text is None else free_text.titles
        bits = empty_bits(scan.shape, len(class_names()) + len(texts))
        if self.network.device.type == "cpu":
            bits.fill(0)  # which takes the memory now, so that estimates see it

        def keep(box: Box, part: Bits) -> None:
            bits[(slice(None), *box)] = part

        return Prediction(bits, self.stream(scan, keep, classes, free_text, report=report, say=say))

    @torch.inference_mode()
    def stream(
        self,
        scan: Scan,
        sink: Sink,
        classes: Sequence[str] | None = None,
        free_text: FreeText | None = None,
        *,
        report: Reporter | None = None,
        say: Say | None = None,
    ) -> Scores:
        """Give the class bits of each slab to `sink` as soon as it is finished, in order, and return the scores.

        classes: names or titles wanted (all for None); only these are computed. free_text: what else to look for.
        report: told how far the prediction is, first after the first windows, with an estimate of time and memory.
        say: told what is done when memory runs out, or when float16 overflows: then all slabs are made, and given, once
        more in bfloat16. Without it that is logged as a warning. Memory does not grow with the length of the scan.
        Raises KeyError for a class the model does not have, NotFiniteLogits where its logits are NaN or infinite.
        """
        names = self.settings.select(classes)
        texts = () if free_text is None else free_text.titles
        channels = {name: class_info(name).channel for name in names}
        channels |= {text: len(class_names()) + number for number, text in enumerate(texts)}
        query = Query(names, None if free_text is None else torch.as_tensor(free_text.rows))
        words = words_for(len(class_names()) + len(texts))
        remarks: list[str] = []

        def told(remark: str) -> None:
            remarks.append(remark)
            (say or logging.getLogger(__name__).warning)(remark)

        def attempt() -> Scores:
            tally = Tally(channels, words, self._grid(scan).axis)
            opinions = self.network.opinions
            agreement = Agreement(opinions, len(query), self.settings.patch) if opinions > 1 else None
            self.network.watch = None if agreement is None else agreement.add
            handover = Handover(sink)
            for slab in self.slabs(scan, query, report=report, say=told):
                handover.flush()  # a GPU has this slab to do meanwhile, which is launched but not done
                handover.put(slab.box, tally.add(slab.logits))
            handover.flush()
            agreed = [None] * len(query) if agreement is None else agreement.means()
            return tally.scores(agreed, remarks, self.network.wanted_precision)

        try:
            return attempt()
        except NotFiniteLogits as error:
            if self.network.wanted_precision != "16-mixed":
                raise
            titles = error.titles
        # after the handler, which keeps the logits of the first attempt alive
        told(f"float16 overflows for {', '.join(titles)}; this scan is predicted again in bf16-mixed")
        with self.network.in_precision("bf16-mixed"):
            return attempt()

    def _grid(self, scan: Scan) -> WindowGrid:
        return WindowGrid(scan.shape, self.settings.patch, self.overlap)

    @torch.inference_mode()
    def slabs(
        self, scan: Scan, query: Query, *, report: Reporter | None = None, say: Say | None = None
    ) -> Iterator[Slab]:
        """Yield the blended logits of the scan, slab by slab, for whoever wants more of them than masks."""
        grid = self._grid(scan)
        low = self.settings.hu_window[0]
        network = self.network
        network.start(say)
        busy = busy_windows(scan, grid, low)
        air_seen = not all(map(all, busy))
        meter = Meter(network, sum(map(sum, busy)) + air_seen, sum(map(len, busy)), report)
        sums = _Sums(grid, len(query), network)
        air: Tensor | None = None
        for number, slab in enumerate(read_slabs(scan, grid)):
            values = window_hu(_sent(slab, network.device), self.settings.hu_window)
            todo = [box for box, is_busy in zip(grid.windows, busy[number], strict=True) if is_busy]
            for box, logits in network.logits(values, todo, query):  # (C, px, py, pz)
                sums.add(box, logits)
                meter.count(1)
            for box in (box for box, is_busy in zip(grid.windows, busy[number], strict=True) if not is_busy):
                if air is None:
                    (_, seen), *_ = network.logits(values, [box], query)
                    air = seen.clone()  # the next pass may write over what this one gave
                    meter.count(1)
                sums.add(box, air)
            kept = grid.kept(number)
            if kept is not None:
                yield Slab(kept[1], sums.finished(grid.finished(number))[(slice(None), *kept[0])])
            sums.advance(grid.finished(number))


def _sent(slab: NDArray[Any], device: torch.device) -> Tensor:
    """Return `slab` on `device`, in the order it has in memory: turning round and widening is for the device."""
    raw = torch.as_tensor(np.asarray(slab, order="A"))
    if device.type != "cuda":
        return raw.to(device)
    return raw.pin_memory().to(device, non_blocking=True)  # else the host waits for all that it has launched


class _Sums:
    """Weighted sums of the logits of one slab, (C, X, Y, Z) with the slab's thickness, and of the weights."""

    def __init__(self, grid: WindowGrid, channels: int, network: Network) -> None:
        self._axis = grid.axis
        device = network.device
        try:
            self._total = torch.zeros((channels, *grid.slab_shape), device=device)
        except RuntimeError as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
            size = 4 * channels * np.prod(grid.slab_shape) / 1e9
            network.say(f"out of memory on {device}: the {size:.1f} GB of a slab's logits are kept in main memory")
            device = torch.device("cpu")
            self._total = torch.zeros((channels, *grid.slab_shape), device=device)
        self._total.zero_()  # the system gives memory when it is written to, and estimates are to see it
        self._weights = torch.zeros(grid.slab_shape, device=device)
        self._weight = gaussian_weight(grid.patch, device=device)

    def add(self, box: Box, logits: Tensor) -> None:
        """Add the logits (C, px, py, pz) of the window at `box`."""
        self._total[(slice(None), *box)].addcmul_(logits.to(self._total.device), self._weight)
        self._weights[box] += self._weight

    def finished(self, planes: int) -> Tensor:
        """Return the logits of the first `planes`, (C, x, y, z), in place of their sums."""
        return self._total.narrow(1 + self._axis, 0, planes).div_(self._weights.narrow(self._axis, 0, planes))

    def advance(self, planes: int) -> None:
        """Drop the first `planes` and begin as many new ones behind the others, in place."""
        for tensor, axis in ((self._total, 1 + self._axis), (self._weights, self._axis)):
            length = tensor.shape[axis]
            for start in range(0, length, planes):
                # pieces no longer than the distance they move do not overlap
                size = min(planes, length - start)
                moved = max(0, min(size, length - start - planes))
                tensor.narrow(axis, start, moved).copy_(tensor.narrow(axis, min(start + planes, length), moved))
                tensor.narrow(axis, start + moved, size - moved).zero_()


def predict_bits(
    models: UniversalModel | Sequence[UniversalModel],
    metadata: ModelMetadata | ModelSettings,
    image: NDArray[Any],
    *,
    overlap: float = 0.5,
    batch: int | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    classes: Sequence[str] | None = None,
) -> Prediction:
    """Return the masks of one `image` (X, Y, Z) HU, RAS, on the grid of the model's spacing; see `Predictor`.

    Raises ValueError for NaN or infinite voxels and for a wrong number of axes, KeyError for a class the model does not
    have.
    """
    predictor = Predictor(models, metadata, overlap=overlap, batch=batch, device=device, precision=precision)
    return predictor.predict(ArrayScan(np.asarray(image)), classes)
