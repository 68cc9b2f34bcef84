"""Noise removal with DeepFilterNet and conversion with FFmpeg, as a server of its own."""
