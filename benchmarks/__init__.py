"""The same work done by this library and by its peers, in one run: `python -m benchmarks`.

Absolute times mean nothing on a shared machine, so what counts are ratios. One process a contender, one of
them running at a time, in turns; medians; the same cores and threads for all, the same loss and gradients
checked before any clock starts.
"""
