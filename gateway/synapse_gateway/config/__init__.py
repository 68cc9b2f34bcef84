"""Configuration: files of any dialect in, one frozen `Settings` out, again at every change."""

from synapse_gateway.config.defaults import ResolvedTimeouts, effective_timeouts
from synapse_gateway.config.load import Dialect, Loaded, load, load_for_serving
from synapse_gateway.config.options import ServeOptions
from synapse_gateway.config.settings import Settings

__all__ = [
    "Dialect",
    "Loaded",
    "ResolvedTimeouts",
    "ServeOptions",
    "Settings",
    "effective_timeouts",
    "load",
    "load_for_serving",
]
