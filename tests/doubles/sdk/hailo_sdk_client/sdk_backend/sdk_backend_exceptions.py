"""Exceptions of the backend."""

from double_parts.script import AllocatorScriptParserException, BackendScriptParserException  # noqa: F401


class BackendRuntimeException(Exception):
    """A call in the wrong state."""


class BackendAllocatorException(Exception):
    """A network that cannot be placed on the chip."""


class BackendValueError(Exception):
    """Weights that are not numbers."""
