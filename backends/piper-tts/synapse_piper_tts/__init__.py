"""Text to speech with Piper, as a server of its own.

Piper is under the GPL-3, so it is imported here and nowhere else (see LICENSES.md).
"""
