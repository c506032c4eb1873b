"""Images written from a stream of full-width bands, in bounded memory, whole or not at all."""

from smartsplat_large.sink.write import band_height, check_output, write_image

__all__ = ["band_height", "check_output", "write_image"]
