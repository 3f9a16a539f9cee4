"""VTrace: says why real packets are persistently lost in a cloud overlay network."""

__version__ = "0.1.0"
