"""Exceptions of the backend."""


class BackendScriptParserException(Exception):
    """A script that does not parse."""


class AllocatorScriptParserException(Exception):
    """A script that parses, with a command that cannot be applied."""


class BackendRuntimeException(Exception):
    """A call in the wrong state."""


class BackendAllocatorException(Exception):
    """A network that cannot be placed on the chip."""


class BackendValueError(Exception):
    """Weights that are not numbers."""
