"""The order of services: dependencies first, otherwise as the resource has them. Pure; called by `spec` and by the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Depends = Mapping[str, Iterable[str]]


def dependencies_first(names: Sequence[str], depends_on: Depends) -> tuple[str, ...]:
    """All names, each after what it depends on; of several that could be next, the first of `names`.

    Those on a cycle, or behind one, come last, as they are: `find_cycle` tells of them.
    """
    done, stuck = _sorted(names, depends_on)
    return (*done, *stuck)


def find_cycle(names: Sequence[str], depends_on: Depends) -> tuple[str, ...]:
    """One cycle of dependencies, its first name again at its end; empty: there is none."""
    _, stuck = _sorted(names, depends_on)
    path = stuck[:1]
    while path:
        following = next(one for one in depends_on[path[-1]] if one in stuck)  # each is stuck because of another
        if following in path:
            return (*path[path.index(following) :], following)
        path.append(following)
    return ()


def _sorted(names: Sequence[str], depends_on: Depends) -> tuple[list[str], list[str]]:
    """(dependencies first, what cannot be sorted)."""
    left, done = list(names), list[str]()
    while True:
        free = (name for name in left if not set(depends_on.get(name, ())).intersection(left))
        following = next(free, None)
        if following is None:
            return done, left
        left.remove(following)
        done.append(following)
