"""Exceptions of the backend."""


class BackendScriptParserException(Exception):
    """A script that does not parse."""


class AllocatorScriptParserException(Exception):
    """A script that parses and means nothing."""


class BackendRuntimeException(Exception):
    """A call at the wrong time."""


class BackendAllocatorException(Exception):
    """No place on the chip."""


class BackendValueError(Exception):
    """Numbers that are none."""
