"""XML as text, with each element's children in the order they are given. Called by publications."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def element(name: str, *children: str, **attributes: str) -> str:
    """An element; of an attribute's name a first `_` is a colon: `xsi_type`."""
    said = "".join(f" {key.replace('_', ':', 1)}={quoteattr(value)}" for key, value in attributes.items())
    return f"<{name}{said}>{''.join(children)}</{name}>" if children else f"<{name}{said}/>"


def leaf(name: str, value: object, **attributes: str) -> str:
    """An element with text."""
    return element(name, escape(str(value)), **attributes)
