"""Which methods may be called in which state. The exception of the real SDK for a wrong state is not public."""

from __future__ import annotations

import functools
from typing import Any, Callable


class InvalidStateException(Exception):
    """A method was called in the wrong state."""


def allowed_states(*states: Any) -> Callable:
    """Allow a method in these states only."""

    def guard(method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped_func(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state not in states:
                names = ", ".join(map(str, states))
                raise InvalidStateException(f"{method.__name__} is not available in {self.state} (expected {names})")
            return method(self, *args, **kwargs)

        return wrapped_func

    return guard
