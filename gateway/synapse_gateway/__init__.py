"""Synapse gateway: one OpenAI-compatible endpoint in front of many local AI services."""

__version__ = "0.1.0"
