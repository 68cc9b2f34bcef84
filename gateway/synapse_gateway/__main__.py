"""`python -m synapse_gateway` is the `synapse` command."""

import sys

from synapse_gateway.cli import main

sys.exit(main())
