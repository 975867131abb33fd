"""The flags of a segment: one word for the overall verdict, for each limit, and for each worker that is present."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from shm_monitor.segment import futex, layout
from shm_monitor.segment.address import address_of
from shm_monitor.segment.flags import ended_word, flag_word
from shm_monitor.segment.layout import WORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shm_monitor.sampler.attendance import Told
    from shm_monitor.sampler.ownership import OwnedSegment


class FlagWriter:
    """Stores each flag that changed and wakes the readers that wait for it.

    Attributes:
        address: of the first flag in this process.
    """

    def __init__(self, segment: OwnedSegment, count: int) -> None:
        """Write into *segment*, for the calling thread; *count* flags are the overall one and those of limits."""
        self.address = address_of(segment.memory) + layout.FLAGS_OFFSET
        self._segment = segment
        self._thread_id = threading.get_native_id()
        self._words = [-1] * count
        self._worker_words: dict[int, int] = {}  # by flag
        self._everybody = -1  # the word of the slots that nobody holds

    def press(self, verdicts: list[int]) -> None:
        """Store the flags of the overall verdict and the limits, the overall one last.

        At a takeover readers ask flag 0 whether the sampler lives: by then no flag may be a dead sampler's.
        """
        for index in reversed(range(len(verdicts))):
            word = flag_word(verdicts[index], self._thread_id)
            if word != self._words[index]:
                self._words[index] = word
                self._show(index, word)

    def tell(self, told: Told) -> None:
        """Store the flags of workers and their requests; free slots hold the verdict for everybody."""
        for slot, request in told.requests.items():  # before the flag that points to it
            self._segment.store(layout.REQUESTS_OFFSET + slot * WORD_BYTES, request)
        words = {layout.FIRST_WORKER_FLAG + slot: word for slot, word in told.verdicts.items()}
        words[layout.OTHERS_FLAG] = told.others
        everybody = flag_word(told.everybody, self._thread_id)
        free: Iterable[int] = self._worker_words
        if everybody != self._everybody:
            self._everybody = everybody
            free = range(layout.FIRST_WORKER_FLAG, layout.FLAG_COUNT)
        for index in [index for index in free if index not in words]:
            self._segment.store(_offset(index), everybody)
            self._worker_words.pop(index, None)
        for index, verdict in words.items():
            word = flag_word(verdict, self._thread_id)
            if word != self._worker_words.get(index):
                self._worker_words[index] = word
                self._show(index, word)

    def end(self) -> None:
        """Mark every flag as that of a sampler that has ended, those of workers too."""
        for index in range(layout.FLAG_COUNT):
            word = self._segment.word(_offset(index))
            if word:
                self._show(index, ended_word(word))

    def _show(self, index: int, word: int) -> None:
        self._segment.store(_offset(index), word)
        if futex.HAS_FUTEX:
            futex.wake(self.address + index * layout.FLAG_STRIDE)


def _offset(index: int) -> int:
    return layout.FLAGS_OFFSET + index * layout.FLAG_STRIDE
