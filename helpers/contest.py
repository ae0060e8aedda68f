"""A row of `11_performance`: our ways of a piece of work, and the peers that are invited to do the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from helpers import peers
from helpers.interleaved import Way

__all__ = ["Contest"]


@dataclass
class Contest:
    """A row's ways, ours first; `invited` are peers, each made when the contest is `gathered`; `absent` says why one is
    not among the ways then; `warm`: one untimed round first.

    `work` of our way is what is counted, without what is only a start, and `work_items` is how many items it handles.
    """

    item: str
    ways: dict[str, Way]
    absent: dict[str, str] = field(default_factory=dict)
    warm: bool = True
    work: Callable[[], object] | None = None
    work_items: float = 1.0
    invited: dict[str, Callable[[], Way]] = field(default_factory=dict)

    def gathered(self) -> Contest:
        """With each of the `invited` among its ways, where it is there and does what is asked; else why not noted."""
        for name, make in self.invited.items():
            try:
                way = make()
                if self.warm:
                    way.run(0)
            except peers.Absent as reason:
                self.absent[name] = str(reason)
            except Exception as error:  # other people's code: whatever it raises, the other ways are still to be timed
                self.absent[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            else:
                self.ways[name] = way
        return self
