"""The web page, `page.html` beside this file, the form that asks for its token, and the policies that come with them.

With them a browser runs only the page's script. Names of classes, models and cameras are shown as text, never as HTML.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

PAGE = Path(__file__).with_name("page.html").read_bytes().decode("utf-8")


def _hash_of(element: str) -> str:
    """The page's one inline <style> or <script>, as a content security policy names it."""
    text = PAGE.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# the form sends the token to this path; it has a password field, so that the browser offers to remember the token
LOGIN_PATH = "/login"
LOGIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hefkit</title>
<h1>hefkit</h1>
<p>{}</p>
<form method="post" action="login">
<input type="hidden" name="username" value="hefkit" autocomplete="username">
<label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Open</button>
</form>
<p>The detector printed the token at its start, or it is in the file that --web-token-file names.</p>
</html>
"""
LOGIN_POLICY = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
