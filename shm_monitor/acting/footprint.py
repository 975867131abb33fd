"""What work takes at its peak, by its size: a part that is always the same, and so much per unit."""

from __future__ import annotations

LEARN_DOWN = 1 / 16  # work that took less than foreseen lowers the estimate by this share of the difference
LARGEST_FIXED_SHARE = 0.5  # of what work took: twice as much work then takes a quarter less than twice, at the worst
OTHER_SIZE = 1.25  # sizes that differ by less tell more of noise than of what is fixed


class Footprint:
    """Bytes that work of so many units takes: ``fixed_bytes + units * bytes_per_unit``.

    What is more than foreseen raises the whole line at once, by its own ratio; what is less lowers it slowly. Two
    pieces of different sizes tell what of it is fixed. Measured: a gradient of 16 MB beside rows of 1 MB made a row
    look like 2.75 MB in slices of 13 rows, and there the size stayed.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self.fixed_bytes = 0.0
        self.bytes_per_unit = 0.0
        self._most_units = 0
        self._last = (0, 0.0)

    def bytes_of(self, units: float) -> float:
        """Return what *units* would take at their peak; 0 as long as nothing is known."""
        return self.fixed_bytes + units * self.bytes_per_unit

    def units_in(self, budget: float) -> int:
        """Return how many units fit into *budget* bytes; something must be known."""
        return int(max(budget - self.fixed_bytes, 0.0) / self.bytes_per_unit)

    def warn(self, units: int, peak_bytes: float) -> None:
        """Raise the estimate where *units* took more than foreseen."""
        foreseen = self.bytes_of(units)
        if not foreseen:
            self.bytes_per_unit = peak_bytes / units
        elif peak_bytes > foreseen:
            self._scale(peak_bytes / foreseen)

    def learn(self, units: int, peak_bytes: float) -> None:
        """Take in that *units* took *peak_bytes*: more units than ever tell most of what is fixed."""
        if not (peak_bytes > 0 or self.bytes_of(units)):
            return
        share = 0.5 if units > self._most_units else LEARN_DOWN
        self.warn(units, peak_bytes)
        self._split(units, peak_bytes, share)
        self._scale(1 + (peak_bytes / self.bytes_of(units) - 1) * share)
        self._most_units = max(units, self._most_units)
        self._last = (units, peak_bytes)

    def _split(self, units: int, peak_bytes: float, share: float) -> None:
        """Move what counts as fixed towards what the line through this piece and the last one says."""
        (few, less), (many, more) = sorted(((units, peak_bytes), self._last))
        if not few or many < OTHER_SIZE * few:
            return
        seen = more - many * (more - less) / (many - few)
        most = max(LARGEST_FIXED_SHARE * more, self.fixed_bytes)  # larger pieces may have told of more
        foreseen = self.bytes_of(many)
        self.fixed_bytes += (min(max(seen, 0.0), most) - self.fixed_bytes) * share
        self.bytes_per_unit = (foreseen - self.fixed_bytes) / many

    def _scale(self, ratio: float) -> None:
        self.fixed_bytes *= ratio
        self.bytes_per_unit *= ratio
