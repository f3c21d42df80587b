"""A real face, its mirror, and a task file, for the tests of the face mesh."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

# Points of the mesh and those that they become in a mirror; the others of MIDDLE stay. All that
# is measured is measured on these.
PAIRS = (
    (33, 263), (133, 362), (129, 358),  # eye corners, wings of the nose
    (107, 336), (55, 285), (70, 300), (46, 276), (63, 293), (53, 283),  # brows
    (159, 386), (158, 385), (160, 387), (145, 374), (144, 373), (153, 380),  # lids
    (61, 291), (37, 267), (82, 312), (87, 317), (84, 314), (78, 308), (81, 311), (178, 402),  # lips
    (148, 377), (468, 473),  # chin, irises
)  # fmt: skip
MIDDLE = (10, 168, 6, 2, 0, 13, 14, 17, 199, 200, 152)


def mirrored(mesh: np.ndarray) -> np.ndarray:
    """The (478, 3) mesh of the mirrored face; points not in PAIRS or MIDDLE lie anywhere."""
    result = np.random.default_rng(4).normal(size=mesh.shape)
    right, left = np.array(PAIRS).T
    middle = list(MIDDLE)
    result[right], result[left], result[middle] = mesh[left], mesh[right], mesh[middle]
    return result * [-1, 1, 1]


def astronaut() -> np.ndarray:
    """(256, 256, 3) with one frontal face of about 100 pixels, its eyes at (128, 102)."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(image, 0, 1) * 255)


def scaled(image: np.ndarray, scale: float) -> np.ndarray:
    from skimage.transform import rescale

    return to_bytes(rescale(image, scale, channel_axis=2, anti_aliasing=True))


def tilted(image: np.ndarray, angle: float) -> np.ndarray:
    """The picture turned about the face's middle, counter-clockwise by `angle` degrees."""
    from skimage.transform import rotate

    return to_bytes(rotate(image, angle, center=(128, 112), mode="edge"))


def models() -> Path:
    """The folder of models in MediaPipe's wheel."""
    [folder] = importlib.util.find_spec("mediapipe").submodule_search_locations
    return Path(folder) / "modules"


def task_file(path: Path, irises: Sequence[int]) -> Path:
    """A face_landmarker task file, made of the models in MediaPipe's wheel.

    Its model of the mesh knows no irises: points `irises` of the face stand for them.
    """
    import flatbuffers
    from mediapipe.tasks.metadata import schema_py_generated as schema

    plain = (models() / "face_landmark" / "face_landmark.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(plain, 0))
    graph = model.subgraphs[0]
    # One more operator, GATHER(coordinates of 468 points, which) = coordinates of 478 points.
    which = np.array([3 * p + axis for p in (*range(468), *irises) for axis in range(3)], np.int32)
    buffer, code, gather = schema.BufferT(), schema.OperatorCodeT(), schema.OperatorT()
    buffer.data = np.frombuffer(which.tobytes(), np.uint8)
    model.buffers.append(buffer)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.GATHER
    code.version = 1
    model.operatorCodes.append(code)
    kinds = schema.TensorType
    for name, shape, kind, place in (
        ("which", [len(which)], kinds.INT32, len(model.buffers) - 1),
        ("points", [1, 1, 1, len(which)], kinds.FLOAT32, 0),
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, kind, place
        tensor.shape = np.array(shape, np.int32)
        graph.tensors.append(tensor)
    which_at, points_at = len(graph.tensors) - 2, len(graph.tensors) - 1
    gather.opcodeIndex = len(model.operatorCodes) - 1
    gather.inputs = np.array([graph.outputs[0], which_at], np.int32)
    gather.outputs = np.array([points_at], np.int32)
    gather.builtinOptionsType = schema.BuiltinOptions.GatherOptions
    gather.builtinOptions = schema.GatherOptionsT()
    gather.builtinOptions.axis = 3
    graph.operators.append(gather)
    graph.outputs = np.array([points_at, *graph.outputs[1:]], np.int32)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    detector = models() / "face_detection" / "face_detection_short_range.tflite"
    with zipfile.ZipFile(path, "w") as file:
        file.write(detector, "face_detector.tflite")
        file.writestr("face_landmarks_detector.tflite", bytes(builder.Output()))
    return path
