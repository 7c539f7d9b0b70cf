"""Sizes of pages, the same for every list of identity."""

from __future__ import annotations

from citykit.errors import InvalidArgument

PAGE_MAX = 500
_DEFAULT = 100


def page_of(size: int) -> int:
    """Rows of one page: 100 where 0 is asked, 500 at most (AIP-158).

    Raises:
        InvalidArgument: a negative size.
    """
    if size < 0:
        raise InvalidArgument(f"a page has 1 to {PAGE_MAX} rows; leave page_size out for {_DEFAULT}", field="page_size")
    return min(size or _DEFAULT, PAGE_MAX)
