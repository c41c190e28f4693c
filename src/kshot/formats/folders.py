"""Support folders: whichever layout it is, say so; on failure list what was looked for."""
