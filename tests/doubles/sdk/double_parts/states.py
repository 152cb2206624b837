"""The guard of the methods. Which exception the real one raises at the wrong time is not known publicly."""

from __future__ import annotations

import functools
from typing import Any, Callable


class InvalidStateException(Exception):
    """A method was called at the wrong time."""


def allowed_states(*states: Any) -> Callable:
    """Only in these states."""

    def guard(method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped_func(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state not in states:
                names = ", ".join(map(str, states))
                raise InvalidStateException(f"{method.__name__} is not available in {self.state} (expected {names})")
            return method(self, *args, **kwargs)

        return wrapped_func

    return guard
