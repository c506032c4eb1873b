"""Where a fit starts: points, scales and colours from the image's features, SmartSplat eqs. 5, 9-21 and 23-39.

:func:`sample` does all of it; the modules beneath are its steps, one each.
"""

from smartsplat_large.sampling.sampler import budget, sample

__all__ = ["budget", "sample"]
