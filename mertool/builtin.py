"""mertool's own extractors, aligners and readers, registered as any plugin's are."""

from __future__ import annotations

from mertool.hookspecs import Register, hookimpl

_RATES = "Logarithms of a whole spectrum also see what a resampler leaves above its cut-off"


@hookimpl
def register_extractors(register: Register) -> None:
    """Text, audio and vision extractors."""
    register(
        "minilm",
        "mertool.extract.text:MiniLM",
        modality="text",
        summary="Token states of the packaged all-MiniLM-L6-v2, 384 columns, offline",
    )
    register(
        "bert",
        "mertool.extract.text:Bert",
        modality="text",
        summary="Token states of any Hugging Face encoder (id or local folder)",
    )
    register(
        "glove",
        "mertool.extract.glove:Glove",
        modality="text",
        summary="Word vectors of your own file, GloVe's or another's, memory-mapped",
    )
    register(
        "covarep",
        "mertool.extract.covarep.extractor:Covarep",
        modality="audio",
        summary="COVAREP's 74 voice features: pitch, glottal source, spectral envelope, phase",
        waivers={"rates": _RATES},
    )
    register(
        "covarep5",
        "mertool.extract.covarep.extractor:Covarep5",
        modality="audio",
        summary="The five of COVAREP's columns that MOSI's released features hold",
        waivers={"rates": _RATES},
    )
    register(
        "egemaps",
        "mertool.extract.egemaps:EGeMAPS",
        modality="audio",
        summary="25 low-level descriptors of eGeMAPSv02 by openSMILE, non-commercial licence",
    )
    register(
        "logmel",
        "mertool.extract.logmel:LogMel",
        modality="audio",
        summary="Log-mel filter bank, 80 bands, 100 rows per second",
    )
    register(
        "hf",
        "mertool.extract.hf_audio:HFAudio",
        modality="audio",
        summary="Frame states of any wav2vec2, HuBERT, WavLM or data2vec (id or local folder)",
    )
    register(
        "facemesh",
        "mertool.extract.face.facemesh:FaceMesh",
        modality="vision",
        summary="16 geometric action units, head pose, gaze, openings of eyes and mouth; offline",
    )
    register(
        "pyfeat",
        "mertool.extract.face.pyfeat:PyFeat",
        modality="vision",
        summary="20 action units, 7 emotions, pose, gaze by py-feat, non-commercial weights",
    )
    register(
        "openface",
        "mertool.extract.face.openface:OpenFace",
        modality="vision",
        summary="35 action unit columns, pose and gaze of OpenFace 2's output, research licence",
    )
    register(
        "resnet",
        "mertool.extract.face.image:ResNet",
        modality="vision",
        summary="A frame from each of T segments through a ResNet, face or whole frame",
    )
    register(
        "hf_image",
        "mertool.extract.face.image:HFImage",
        modality="vision",
        summary="Frame states of any image encoder: ResNet, ViT, DINOv2, CLIP (id or local folder)",
    )


@hookimpl
def register_aligners(register: Register) -> None:
    """Forced aligners."""
    register(
        "pocketsphinx",
        "mertool.align.sphinx:Pocketsphinx",
        summary="English forced alignment with the packaged acoustic model, offline",
    )
    register(
        "ctc",
        "mertool.align.ctc:CTC",
        summary="Forced alignment with any wav2vec2-style CTC model (id or local folder)",
    )
    register(
        "file",
        "mertool.align.file:File",
        summary="Word times of another program, from whisperX JSON, TextGrid or .align files",
    )


@hookimpl
def register_readers(register: Register) -> None:
    """Readers of feature sets of others."""
    register(
        "npz",
        "mertool.readers.npz:Npz",
        summary="Arrays of features of numpy.savez, by split or flat",
    )
    register(
        "words",
        "mertool.readers.words:Words",
        summary="JSON list of transcripts with word times and labels",
    )
