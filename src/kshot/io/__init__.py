"""Where bytes are read and written: images, videos, rasters, paths, atomic files, JSON lines, tensors, the Hub."""
