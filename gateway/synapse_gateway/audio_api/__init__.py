"""The audio contract in terms of what backends speak, and back. Pure: bytes and values, no I/O."""
