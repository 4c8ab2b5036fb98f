"""Which worker gets a call: livekit-server's rule (1.11 to 1.13).

First a server node bids with the sum of max(0, target_load - load) over its available workers, and without a bid the call is
lost. Then a worker is drawn with the weight max(0, 1 - load) among the available ones; one that refuses is left out and the
next is drawn, until nobody is left. Loads are those that the workers reported last. Nothing is queued or repeated
(livekit/livekit, pkg/agent/client.go and pkg/service/agenthandler.go; livekit/psrpc, pkg/client/rpc.go).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
# After so many refusals the workers that would accept are found at once instead of by chance.
DRAWS = 8
RANDOM_NUMBERS = 4096


class Dispatcher:
    """Draws workers, with randomness of its own."""

    def __init__(self, rng: np.random.Generator, target_load: float) -> None:
        self._rng, self._target_load = rng, target_load
        self._randoms: list[float] = []
        self._weights: Weights = np.zeros(0)
        self._cumulated: Weights = self._weights
        self._total = 0.0

    def look(self, reported: Weights, available: NDArray[np.bool_]) -> None:
        """What the server knows from now on, both of shape (workers,): loads reported last, and who is available."""
        loads = reported[available]
        if not loads.size or loads.min() >= self._target_load:
            self._total = 0.0
            return
        self._weights = np.where(available, np.maximum(0.0, 1.0 - reported), 0.0)
        self._cumulated = self._weights.cumsum()
        self._total = float(self._cumulated[-1])

    @property
    def bids(self) -> bool:
        """Whether a call would be offered to anybody."""
        return self._total > 0

    def offer(self, accepts: Callable[[int], bool], who_accepts: Callable[[], NDArray[np.bool_]]) -> int | None:
        """The index of the worker that takes the call, or None if the call is lost.

        ``accepts(worker)`` is the answer of one, ``who_accepts()`` the answers of all, shape (workers,).
        """
        if self._total <= 0:
            return None
        for _ in range(DRAWS):
            worker = self._draw(self._cumulated, self._total)
            if accepts(worker):
                return worker
        # Drawing without those that refused, again and again, leads to each willing one with a chance in proportion to its
        # weight: the same as drawing among the willing ones only.
        cumulated = np.where(who_accepts(), self._weights, 0.0).cumsum()
        total = float(cumulated[-1])
        return self._draw(cumulated, total) if total > 0 else None

    def _draw(self, cumulated: Weights, total: float) -> int:
        if not self._randoms:
            self._randoms = self._rng.random(RANDOM_NUMBERS).tolist()
        # Rounding must not lead past the end.
        drawn = min(self._randoms.pop() * total, np.nextafter(total, 0.0))
        return int(cumulated.searchsorted(drawn, side="right"))
