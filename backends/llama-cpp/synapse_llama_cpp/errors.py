class StartError(Exception):
    """The server cannot start; the message is a sentence for the person who started it."""
