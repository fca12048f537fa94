"""python -m mechproof.verifier CERTIFICATE MODEL.safetensors: one line; exit 0 proved, 1 refused, 2 unreadable."""

import sys

from .verdict import verify

if len(sys.argv) != 3:
    print("usage: python -m mechproof.verifier CERTIFICATE MODEL.safetensors", file=sys.stderr)
    sys.exit(2)
verdict = verify(*sys.argv[1:])
print(verdict.line)
sys.exit(verdict.code)
