"""`map`: the flows of `observe` as edges between workloads, on a page that this machine alone can open."""
