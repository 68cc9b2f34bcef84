"""Speech in the tone colour of reference recordings with OpenVoice, as a server of its own."""
