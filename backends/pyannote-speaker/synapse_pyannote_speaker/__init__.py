"""Who speaks when, and whether two recordings are of one speaker, as a server of its own."""
