"""A real two-node Kubernetes on one Linux machine, without Docker or an image registry."""
