"""Exceptions of the parser."""


class ParsingWithRecommendationException(Exception):
    """Parsing failed; the message holds advice."""


class MisspellNodeError(Exception):
    """A node that is not in the graph."""


class UnsupportedModelError(Exception):
    """A graph that cannot be translated."""
