"""`--web-token-file`: a token for the web page that stays the same, in a file that only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path

from hefkit.errors import UsageError
from hefkit.files import existing, explained
from hefkit.live.addresses import first_line
from hefkit.text import log, one_line
from hefkit.web.guard import new_token

TOKEN_VARIABLE = "HEFKIT_WEB_TOKEN"


def token_in(path: Path) -> str:
    """The token in the file; a missing file is made, with a new token, for its owner only (mode 0600).

    Raises:
        UsageError: it cannot be read or made, or a variable gives a token too.
    """
    if os.environ.keys() & {TOKEN_VARIABLE, f"{TOKEN_VARIABLE}_FILE"}:
        raise UsageError(f"--web-token-file and {TOKEN_VARIABLE} are both given; expected one of them")
    if not existing(path):
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.{os.getpid()}")  # renamed when it is complete: the run may be killed
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
                file.write(f"{new_token()}\n")
            os.replace(new, path)
        log.info("a token for the web page was made; it is in %s", one_line(path))
    if os.stat(path).st_mode & 0o077:
        log.warning("%s can be read by other users; chmod 600 makes it private", one_line(path))
    return first_line(path, f"--web-token-file {path}")
