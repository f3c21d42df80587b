"""Raw clips to features: `mertool.extract(sources, out)`.

pipeline.py runs the clips, worker.py does one clip, resume.py knows what an earlier run has left,
into.py adds a stream to a file. Extractors: text.py and hf_audio.py (with pretrained.py), covarep/,
egemaps.py, logmel.py, facemesh.py.
"""

from mertool.extract.into import add_streams
from mertool.extract.pipeline import MODALITIES, PROFILES, ExtractReport, run
from mertool.stage import callable_stage

__all__ = ["MODALITIES", "PROFILES", "ExtractReport", "add_streams", "run"]

callable_stage(__name__)
