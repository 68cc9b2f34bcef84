"""Deliberate defects of a deployment, each with the line of the suite that has to catch it."""
