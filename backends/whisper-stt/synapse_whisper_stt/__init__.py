"""Speech to text with Whisper (faster-whisper), as a server of its own."""
