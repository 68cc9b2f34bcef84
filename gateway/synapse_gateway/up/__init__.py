"""`synapse up` and `synapse down`: the gateway and real models as processes of this machine."""

from synapse_gateway.up.commands import main_down, main_up

__all__ = ["main_down", "main_up"]
