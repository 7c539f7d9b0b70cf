"""The login page: plain HTML without script. Used by `oidc`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sign in · {city}</title>
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/style.css">
</head>
<body class="login">
<main class="card">
<p class="brand">Provable City</p>
<h1>Sign in</h1>
<p class="muted">to {city}, for <b>{client}</b></p>
{message}
<form method="post" action="/oidc/authorize">
{hidden}
<label for="login">Login</label>
<input id="login" name="login" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus maxlength="40">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="200">
<button type="submit" class="primary">Sign in</button>
</form>
</main>
</body>
</html>
"""
_WRONG = '<p class="notice bad" role="alert">Login or password is wrong. Check both; after ten wrong tries there is a pause.</p>'


def login_page(city: str, hidden: Mapping[str, str], *, wrong: bool) -> str:
    """The page with the flow's parameters as hidden fields."""
    fields = "\n".join(
        f'<input type="hidden" name="{escape(name, quote=True)}" value="{escape(value, quote=True)}">'
        for name, value in hidden.items()
    )
    return _PAGE.format(
        city=escape(city), client=escape(hidden.get("client_id", "")), hidden=fields, message=_WRONG if wrong else ""
    )
