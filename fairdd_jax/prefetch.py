"""Work done ahead of time in threads, in order, and never more of it than a few pieces."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, pieces: int
) -> Iterator[Result]:
    """The function of every item, in their order.

    Args:
      function: what the threads call; its first error ends the iteration.
      items: what they call it with.
      workers: number of threads.
      pieces: results that may wait or be in the making, besides the one that is taken.

    >>> list(prefetch(str.upper, "abc", workers=2, pieces=1))
    ['A', 'B', 'C']
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > pieces:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
