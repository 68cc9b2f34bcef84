"""`make argocd-proof`: python3 -m hack.argocd."""

import sys

from hack.argocd.proof import main

sys.exit(main())
