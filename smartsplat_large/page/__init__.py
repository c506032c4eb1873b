"""A comparison as one HTML file: curves, a table, and crops of every codec side by side. Nothing is fetched from elsewhere."""

from smartsplat_large.page.curves import MS_SSIM, PSNR, Axis, Series, figure, series_of
from smartsplat_large.page.gallery import Gallery, detailed_windows
from smartsplat_large.page.html import html

__all__ = ["MS_SSIM", "PSNR", "Axis", "Gallery", "Series", "detailed_windows", "figure", "html", "series_of"]
