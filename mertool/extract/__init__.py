"""Raw clips to features: `mertool.extract(sources, out)`.

plan.py settles what is made; prepare.py gives clips their transcripts and has segment.py cut them,
kept.py keeps what took long. pipeline.py runs the clips, worker.py does one clip, resume.py knows
what an earlier run has left, into.py adds a stream to a file. Extractors: text.py, glove.py and
hf_audio.py (with pretrained.py), covarep/, face/, egemaps.py, logmel.py.
"""

from mertool.extract.into import add_streams
from mertool.extract.pipeline import ExtractReport, run
from mertool.extract.plan import MODALITIES, PROFILES
from mertool.stage import callable_stage

__all__ = ["MODALITIES", "PROFILES", "ExtractReport", "add_streams", "run"]

callable_stage(__name__)
