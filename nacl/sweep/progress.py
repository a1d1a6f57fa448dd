"""How a sweep goes, while it goes: a live line in a terminal, a line now and then in a log."""

import heapq
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from nacl.runs import Run
from nacl.sweep.state import epoch_seconds

SECONDS_BETWEEN_LINES = 60  # in a log
SECONDS_AROUND = 10  # before the first epoch and after the last, measured for a tiny run on two cores


@dataclass
class Pace:
    """What is known of the time of one run.

    Attributes:
        epochs: how many it shall have.
        kind: runs of one kind have epochs of about one length.
        began: when it was begun here, on a monotonic clock; None for one that waits.
        before: epochs that it had when it was begun here.
        seconds: how long each epoch took that it has behind it.
    """

    epochs: int
    kind: tuple
    began: float | None = None
    before: int = 0
    seconds: list[float] = field(default_factory=list)


def seconds_left(paces: Sequence[Pace], known: Iterable[Pace], places: int, now: float, around: float) -> float | None:
    """An estimate of the time until all runs of a sweep have ended; None where no epoch was seen yet.

    The runs under way go on where they are, and each place that becomes free takes the next of those that wait. An
    epoch takes as long as those of the same run did, else as those of its kind, else as all.

    Args:
        paces: of the runs that have not ended, in the order in which they are taken.
        known: of the runs whose epochs tell how long an epoch takes.
        places: how many runs go on at once.
        now: the time on the clock of `Pace.began`.
        around: seconds that a run needs beside its epochs.

    Example:
        Two runs of 10 epochs at a time; of the three, one has 5 epochs of 2 s behind it:

        >>> half = Pace(10, (), began=0.0, seconds=[2.0] * 5)
        >>> waiting = Pace(10, ())
        >>> seconds_left([half, waiting, waiting], [half], places=2, now=10.0, around=0.0)
        30.0
    """
    by_kind = defaultdict(list)
    for pace in known:
        by_kind[pace.kind] += pace.seconds
    every = [second for seconds in by_kind.values() for second in seconds]
    if not every:
        return None

    def left(pace: Pace) -> float:
        seconds = pace.seconds or by_kind.get(pace.kind) or every
        epoch = sum(seconds) / len(seconds)
        if pace.began is None:
            return around + epoch * (pace.epochs - len(pace.seconds))
        whole = around + epoch * (pace.epochs - pace.before)
        return max(epoch * (pace.epochs - len(pace.seconds)), whole - (now - pace.began))

    ends = sorted(left(pace) for pace in paces if pace.began is not None)
    ends += [0.0] * (places - len(ends))
    heapq.heapify(ends)
    for pace in paces:
        if pace.began is None and ends:
            heapq.heapreplace(ends, ends[0] + left(pace))
    return max(ends, default=0.0)


def in_words(seconds: float | None) -> str:
    """A time left, as exact as an estimate is.

    >>> in_words(40), in_words(200), in_words(9000), in_words(None)
    ('under a minute left', 'about 3 min left', 'about 2 h 30 min left', 'time left not known yet')
    """
    if seconds is None:
        return "time left not known yet"
    minutes = round(seconds / 60)
    if seconds < 60:
        return "under a minute left"
    return f"about {minutes} min left" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min left"


class Progress:
    """Says how a sweep goes, on the standard error.

    Args:
        todo: the runs to do, by folder.
        planned: how many runs the sweep has, with those that were done before.
        begun: folders in which some epochs may lie.
    """

    def __init__(self, todo: dict[Path, Run], planned: int, begun: Set[Path]) -> None:
        self.paces = {place: Pace(run.epochs, _kind(run)) for place, run in todo.items()}
        for place in begun & self.paces.keys():
            self.paces[place].seconds = epoch_seconds(place)
        self.waiting = dict(self.paces)  # all that have not ended
        self.failed, self.around, self.said, self.note = 0, [], time.monotonic(), ""
        self.bar = None
        if sys.stderr.isatty() and todo:
            total = sum(run.epochs for run in todo.values())
            layout = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} epochs, {desc}"
            self.bar = tqdm(total=total, bar_format=layout, dynamic_ncols=True, leave=False)
        elif todo:
            print(f"{len(todo)} of {planned} runs to do", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the live line away."""
        if self.bar is not None:
            self.bar.close()

    def look(self, running: dict[Path, float], elsewhere: Iterable[Path], places: int, note: str) -> None:
        """Read how far the runs have come.

        Args:
            running: those under way here, and when each was begun on the monotonic clock.
            elsewhere: those that another sweep does.
            places: how many runs go on at once.
            note: what else to say, such as that there is no worker.
        """
        elsewhere = list(elsewhere)
        for place, began in running.items():
            pace = self.waiting.get(place)
            if pace is not None and pace.began != began:
                pace.began, pace.before = began, len(pace.seconds)
        for place in [*running, *elsewhere]:
            if place in self.waiting:
                self.waiting[place].seconds = epoch_seconds(place)
        if note and note != self.note:
            self.say(note)
        self.note = note
        counts = {"running": sum(place in self.waiting for place in running), "elsewhere": len(elsewhere)}
        counts |= {"failed": self.failed, "to go": len(self.waiting) - counts["running"] - counts["elsewhere"]}
        words = [f"{count} {name}" for name, count in counts.items() if count or name == "to go"]
        line = ", ".join([*words, note or in_words(self.seconds_left(places))])
        if self.bar is not None:
            self.bar.total = sum(pace.epochs for pace in self.paces.values())
            self.bar.n = sum(min(len(pace.seconds), pace.epochs) for pace in self.paces.values())
            self.bar.set_description_str(line)
        elif time.monotonic() - self.said > SECONDS_BETWEEN_LINES and self.waiting:
            self.say(line)

    def seconds_left(self, places: int) -> float | None:
        """An estimate for the whole sweep; None where nothing is known yet."""
        around = sum(self.around) / len(self.around) if self.around else SECONDS_AROUND
        waiting = list(self.waiting.values())
        return seconds_left(waiting, self.paces.values(), places, time.monotonic(), around)

    def ended(self, place: Path, error: str) -> None:
        """Take note that a run has ended, and say it."""
        pace = self.waiting.pop(place)
        pace.seconds = epoch_seconds(place) or pace.seconds
        self.failed += bool(error)
        if pace.began is not None and not error:
            took = time.monotonic() - pace.began
            self.around.append(max(0.0, took - sum(pace.seconds[pace.before :])))
        if error:
            pace.epochs = len(pace.seconds)  # of the others the bar is to reach its end
        self.say(f"{'FAILED  ' if error else 'finished'} {place.name} {error}".rstrip())

    def say(self, line: str) -> None:
        """A line that stays."""
        self.said = time.monotonic()
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def _kind(run: Run) -> tuple:
    return run.model, run.filters, run.size, run.depth, run.patch, run.share, run.batch_size, run.loss, run.kernel_size
