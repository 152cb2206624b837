"""The web page, which is `page.html` beside this file, and the policy that lets a browser run nothing but it.

The page shows names of classes, models and cameras as text, never as HTML.
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
