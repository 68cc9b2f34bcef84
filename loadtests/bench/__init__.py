"""The proxy benchmark: the gateway beside nginx, on the same upstream, in one run."""
