"""Paired measurements of tandem beside the same work without it. Each is one module; `RESULTS.md` shows all."""
