"""`python -m benchmarks`: every benchmark there is."""

import sys

from benchmarks import wire

sys.exit(wire.main())
