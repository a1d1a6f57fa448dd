"""The prepared folder: from raw volumes, or cases of one's own, to files of which one slice is one read."""
