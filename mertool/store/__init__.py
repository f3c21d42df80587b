"""The feature file: one HDF5 file with ragged streams, written whole or not at all.

The rows of all clips stand one after the other in `/streams/M/values` (sum T, D);
`/streams/M/offsets` (N + 1,) says where each clip's begin. docs/feature-file.md has it all.
"""

from mertool.store.layout import Stream, is_missing, json_attr
from mertool.store.reader import FeatureFile
from mertool.store.writer import Writer, check_output

__all__ = [
    "FeatureFile",
    "Stream",
    "Writer",
    "check_output",
    "is_missing",
    "json_attr",
]
