from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_samples import (
    BROKEN,
    ODD,
    UNEVEN,
    Track,
    click,
    cut,
    noisy,
    number_of,
    onset,
    picture,
    set_rotation,
    steady,
    talking,
    tone,
    write_media,
    write_wav,
)

from mertool import media
from mertool.errors import MediaError, MertoolWarning, UsageError
from mertool.types import Clip


def shown(path: Path, *args, **kwargs) -> tuple[np.ndarray, list[int]]:
    """Times and frame numbers of a video."""
    found = list(media.frames(path, *args, **kwargs))
    return np.array([time for time, _ in found]), [number_of(image) for _, image in found]


# ---- frames


@pytest.mark.parametrize("fps", [25, 30, 30000 / 1001])
def test_constant_rate(tmp_path, fps):
    path = write_media(tmp_path / "a.mp4", steady(1, fps))
    times, numbers = shown(path)
    np.testing.assert_allclose(times, np.arange(round(fps)) / fps, atol=1e-5)
    assert numbers == list(range(round(fps)))
    assert media.probe(path).fps == pytest.approx(fps, rel=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rate(tmp_path, suffix):
    times, numbers = shown(write_media(tmp_path / f"a{suffix}", UNEVEN))
    np.testing.assert_allclose(times, UNEVEN, atol=1e-6)
    assert numbers == list(range(len(UNEVEN)))


def test_frames_look_right(tmp_path):
    path = write_media(tmp_path / "a.mp4", steady(0.2), codec_options={"crf": "5"})
    for number, (_, image) in enumerate(media.frames(path)):
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        # Colour is stored at half the resolution, so compare away from the edges.
        inside = np.s_[28:44, 4:28], np.s_[28:44, 36:60], np.s_[4:20, 3:5]
        for place in inside:
            difference = image[place].astype(int) - picture(number)[place]
            assert np.abs(difference).max() < 25


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_frames_are_upright(tmp_path, degrees):
    # The camera's sensor lay turned: what it stored, turned clockwise by `degrees`, is upright.
    stored = write_media(
        tmp_path / "a.mp4", steady(0.2), images=lambda i: np.rot90(picture(i), degrees // 90)
    )
    assert media.probe(stored).rotation == 0
    info = media.probe(set_rotation(stored, degrees))
    assert (info.width, info.height) == (64, 48)
    assert abs(info.rotation) == min(degrees, 360 - degrees)
    images = [image for _, image in media.frames(stored)]
    assert [number_of(image) for image in images] == list(range(5))
    assert images[0].shape == (48, 64, 3) and images[0].flags.c_contiguous
    assert images[0][40, 10].argmax() == 0 and images[0][40, 50].argmax() == 2


def test_segments(tmp_path):
    # Key frames are 12 frames apart, so that starts fall between them; B-frames are in.
    options = {"g": "12", "bf": "2"}
    path = write_media(tmp_path / "a.mp4", steady(4), [Track(tone(4))], codec_options=options)
    for start, end in [(0.0, 0.5), (0.5, 1.0), (1.7, 2.06), (3.0, None), (2.99, 3.01), (3.9, 9.0)]:
        times, numbers = shown(path, start, end)
        real = np.arange(100) / 25
        inside = (real >= start - 1e-9) & (real < (end or 4) - 1e-9)
        assert numbers == list(np.flatnonzero(inside))
        np.testing.assert_allclose(times, real[inside] - start, atol=1e-5)


def test_an_index_that_points_too_far(tmp_path, monkeypatch):
    path = write_media(
        tmp_path / "a.mp4", steady(4), [Track(click(2.8, 4))], codec_options={"g": "5"}
    )
    wanted, heard = shown(path, 2.6, 3.0), onset(media.audio(path, 16000, 2.6, 3.0))
    seek = media.source.Source.seek
    monkeypatch.setattr(media.source.Source, "seek", lambda self, time: seek(self, time + 1.2))
    found = shown(path, 2.6, 3.0)
    np.testing.assert_array_equal(found[0], wanted[0])
    assert found[1] == wanted[1] == list(range(65, 75))
    assert onset(media.audio(path, 16000, 2.6, 3.0)) == heard


def test_sampling_at_a_lower_rate(tmp_path):
    path = write_media(tmp_path / "a.mp4", steady(1, 30))
    times, numbers = shown(path, fps=10)
    assert numbers == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    np.testing.assert_allclose(times, np.arange(10) / 10, atol=1e-5)
    assert shown(path, fps=12)[1] == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]
    assert shown(path, 0.5, 0.8, fps=10)[1] == [15, 18, 21]
    for every in (None, 30, 100):
        assert shown(path, fps=every)[1] == list(range(30))
    # Grid points 0, 0.2, 0.4, 0.6, 0.8 and the first frame at or after each, with its real time.
    uneven = write_media(tmp_path / "b.mp4", UNEVEN)
    np.testing.assert_allclose(shown(uneven, fps=5)[0], [0, 0.22, 0.41, 0.62, 0.8], atol=1e-6)


def test_sampling_survives_rounded_times(tmp_path):
    # Matroska stores 1/30 s as 0.033 s; the grid point 1/30 must still be met.
    path = write_media(tmp_path / "a.mkv", steady(2, 30))
    assert shown(path, fps=30)[1] == list(range(60))
    assert shown(path, fps=10)[1] == list(range(0, 60, 3))


def test_frames_are_streamed(tmp_path):
    path = write_media(
        tmp_path / "a.mp4", steady(8), images=lambda i: np.full((240, 320, 3), i, np.uint8)
    )
    found = media.frames(path)
    assert isinstance(found, types.GeneratorType)
    next(found)
    tracemalloc.start()
    count = sum(1 for _ in found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 199
    assert peak < 5 * 240 * 320 * 3  # all frames would be 199 times one


def test_cells():
    np.testing.assert_allclose(
        media.cells(np.array([0.0, 0.1, 0.3]), 0.5), [[0, 0.1], [0.1, 0.3], [0.3, 0.5]]
    )
    np.testing.assert_allclose(media.cells([0.1, 0.3], None), [[0.1, 0.3], [0.3, 0.5]])
    np.testing.assert_allclose(media.cells([0.2], 0.7), [[0.2, 0.7]])
    np.testing.assert_allclose(media.cells([0.2], None), [[0.2, 0.24]])
    # A file's end that lies before its last frame gives no cell of negative length.
    np.testing.assert_allclose(media.cells([0.1, 0.3], 0.3), [[0.1, 0.3], [0.3, 0.5]])
    assert media.cells([], 1.0).shape == (0, 2) and media.cells([0.0]).dtype == np.float64


# ---- the common clock

CONTAINERS = [
    # suffix, picture, sound, ticks, Hz, does the container keep the encoder's delay apart?
    (".mp4", "libx264", "aac", 90000, 44100, True),
    (".mov", "libx264", "aac", 90000, 44100, True),
    (".mkv", "libx264", "aac", 90000, 44100, True),
    (".webm", "libvpx", "libopus", 90000, 48000, True),
    (".avi", "mpeg4", "pcm_s16le", 25, 44100, True),
    (".avi", "libx264", "pcm_s16le", 25, 44100, True),
    (".ts", "libx264", "aac", 90000, 44100, False),
    (".mpg", "mpeg2video", "mp2", 25, 44100, False),
    (".flv", "flv1", "libmp3lame", 25, 44100, False),
]


@pytest.mark.parametrize(("suffix", "video", "audio", "ticks", "rate", "exact"), CONTAINERS)
def test_sound_and_picture_share_a_clock(tmp_path, suffix, video, audio, ticks, rate, exact):
    path = write_media(
        tmp_path / f"a{suffix}",
        steady(3),
        [Track(click(1.5, 3, rate), rate)],
        video=video,
        audio=audio,
        ticks=ticks,
        codec_options={"bf": "2"} if video in ("libx264", "mpeg2video") else None,
    )
    times, numbers = shown(path)
    assert numbers == list(range(75))
    np.testing.assert_allclose(np.diff(times), 0.04, atol=2e-3)
    heard = onset(media.audio(path))
    # The click belongs to half way between frames 37 and 38, whatever the clock's zero is.
    assert heard - times[0] == pytest.approx(1.5, abs=3e-3)
    assert times[0] == pytest.approx(0, abs=1e-3 if exact else 0.05)
    info = media.probe(path)
    assert info.duration == pytest.approx(3.0, abs=0.1)
    assert (info.has_video, info.has_audio, info.audio_tracks) == (True, True, 1)
    assert (info.sample_rate, info.channels) == (rate, 1)
    # A segment, which is sought, shows and sounds as it does in the whole.
    part, part_numbers = shown(path, 1.31, 1.71)
    inside = (times >= 1.31) & (times < 1.71)
    assert part_numbers == list(np.flatnonzero(inside))
    np.testing.assert_allclose(part, times[inside] - 1.31, atol=1e-6)
    assert onset(media.audio(path, 16000, 1.31, 1.71)) == pytest.approx(heard - 1.31, abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_sound_is_preceded_by_zeros(tmp_path, suffix):
    path = write_media(tmp_path / f"a{suffix}", steady(2), [Track(click(0.5, 1), start=0.3)])
    assert shown(path)[0][0] == 0
    sound = media.audio(path)
    assert onset(sound) == pytest.approx(0.8, abs=3e-3)
    assert not sound[: int(0.2 * 16000)].any()
    # In the silence before the sound, and across its beginning.
    np.testing.assert_array_equal(media.audio(path, 16000, 0.1, 0.2), np.zeros(1600))
    assert onset(media.audio(path, 16000, 0.1, 1.0)) == pytest.approx(0.7, abs=3e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_picture(tmp_path, suffix):
    path = write_media(tmp_path / f"a{suffix}", steady(1, start=0.4), [Track(click(0.5, 1.4))])
    np.testing.assert_allclose(shown(path)[0], 0.4 + np.arange(25) / 25, atol=1e-3)
    assert onset(media.audio(path)) == pytest.approx(0.5, abs=3e-3)
    assert media.probe(path).duration == pytest.approx(1.4, abs=0.07)


def test_the_clock_starts_with_the_file(tmp_path):
    # Both begin at 0.5 s of the container's time.
    path = write_media(
        tmp_path / "a.mkv", steady(1, start=0.5), [Track(click(0.5, 1), start=0.5)], audio="flac"
    )
    times, numbers = shown(path)
    assert times[0] == pytest.approx(0, abs=1e-3) and numbers[0] == 0
    assert onset(media.audio(path)) == pytest.approx(0.5, abs=2e-3)
    assert media.probe(path).duration == pytest.approx(1.0, abs=0.05)
    assert shown(path, 0.8)[1] == [20, 21, 22, 23, 24]


def test_gaps_become_silence_and_jitter_does_not(tmp_path):
    import av

    rate, path = 16000, tmp_path / "a.mkv"
    sound = tone(1.0, rate, hz=250)[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for i in range(
            10
        ):  # blocks of 0.1 s; 20 ms of jitter in one, 0.5 s missing after the sixth
            values = np.round(sound[i * 1600 : i * 1600 + 1600] * 32768).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
            frame.sample_rate = rate
            frame.pts = i * 1600 + 320 * (i == 3) + 8000 * (i > 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    expected = np.concatenate([sound[:9600], np.zeros(8000), sound[9600:]])
    np.testing.assert_allclose(media.audio(path), expected, atol=1e-4)
    np.testing.assert_allclose(media.audio(path, rate, 0.55, 1.25), expected[8800:20000], atol=1e-4)


# ---- sound


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".mkv", ".mp4"])
@pytest.mark.parametrize("source", [8000, 44100, 48000])
def test_resampling_keeps_time_and_phase(tmp_path, suffix, source):
    path = tmp_path / f"a{suffix}"
    lossless = suffix in (".wav", ".flac", ".mkv")
    stereo = tone(1.5, source, 440, 2)
    if suffix in (".mkv", ".mp4"):
        write_media(path, (), [Track(stereo, source)], audio="flac" if lossless else "aac")
    else:
        write_wav(path, stereo, source)
    sound = media.audio(path)
    assert sound.dtype == np.float32 and len(sound) == pytest.approx(24000, abs=0.05 * 16000)
    size, sound = len(sound), sound[1600:22400]
    time = np.arange(1600, 22400) / 16000
    reference = 0.5 * np.sin(2 * np.pi * 440 * time)
    if lossless:
        assert size == 24000 and np.abs(sound - reference).max() < 2e-4
    # Phase by projection on the complex tone: 1 ms would be 2.8 rad.
    phase = np.angle(np.vdot(np.exp(2j * np.pi * 440 * time), sound) * 1j)
    assert abs(phase) / (2 * np.pi * 440) < 2e-4


def test_mean_of_channels_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(-32768, 32768, (8000, 2), np.int16)
    values[0], values[1] = (-32768, -32768), (32767, 32767)
    wav = tmp_path / "a.wav"
    soundfile.write(wav, values, 16000)
    mkv = write_media(
        tmp_path / "a.mkv", steady(0.2), [Track(values.T / np.float32(32768))], audio="pcm_s16le"
    )
    for path in (wav, mkv):
        np.testing.assert_array_equal(
            media.audio(path), (values.astype(np.int64).sum(1) / 65536).astype(np.float32)
        )
        np.testing.assert_array_equal(media.audio(path, channel="first"), values[:, 0] / 32768)
    with pytest.raises(UsageError, match="channel"):
        media.audio(wav, channel="second")


@pytest.mark.parametrize(
    ("subtype", "scale"),
    [("PCM_U8", 128), ("PCM_16", 32768), ("PCM_24", 1 << 23), ("PCM_32", 1 << 31)],
)
def test_integer_scaling(tmp_path, subtype, scale):
    values = np.array([-1.0, -0.5, 0.0, 0.25, 0.5] * 100, np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, values, 16000, subtype=subtype)
    np.testing.assert_array_equal(media.audio(path), values)
    # The same bytes through FFmpeg, where the suffix is not libsndfile's.
    other = path.rename(tmp_path / "a.media")
    np.testing.assert_allclose(media.audio(other), values, atol=0)


def test_sound_segments(tmp_path):
    sound = noisy(2.0)
    wav = write_wav(tmp_path / "a.wav", sound)
    whole = media.audio(wav)
    for start, end in [(0, 0.5), (0.25, 0.75), (1.5, None), (1.5, 9.0), (0.33333, 0.66667)]:
        first = round(start * 16000)
        last = 32000 if end is None else min(32000, round(end * 16000))
        np.testing.assert_array_equal(media.audio(wav, 16000, start, end), whole[first:last])
    np.testing.assert_array_equal(np.concatenate(list(media.audio_blocks(wav))), whole)
    clip = Clip("a", "a.wav", str(tmp_path), 0.5, 1.0)
    np.testing.assert_array_equal(clip.audio(), whole[8000:16000])
    assert list(clip.frames()) == []


def test_long_sound_is_streamed(tmp_path):
    path, seconds, rate = tmp_path / "a.wav", 150, 8000
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for _ in range(seconds):
            file.write(tone(1, rate, 440)[0])
    blocks = media.audio_blocks(path, rate=rate)
    assert isinstance(blocks, types.GeneratorType)
    next(blocks)
    tracemalloc.start()
    rest = sum(len(block) for block in blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rest > 140 * rate and peak < rest  # bytes; the samples held would be 4 per sample
    sound = media.audio(path, rate)  # longer than the buffer it starts with
    assert len(sound) == seconds * rate
    np.testing.assert_allclose(sound[-rate:], tone(1, rate, 440)[0], atol=1e-4)


def test_several_tracks(tmp_path):
    tracks = [Track(tone(1.0, hz=300), language="eng"), Track(tone(1.0, hz=900), language="ger")]
    path = write_media(tmp_path / "a.mkv", steady(1), tracks, audio="flac")
    assert media.probe(path).audio_tracks == 2
    with pytest.warns(
        MertoolWarning, match=r"a\.mkv has 2 sound tracks; track 1 \(eng\)"
    ) as caught:
        sound = media.audio(path)
    assert len(caught) == 1
    assert np.abs(np.fft.rfft(sound, 16000)).argmax() == 300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(shown(path)[0]) == 25


def test_cover_art_is_no_video(tmp_path):
    path = write_media(tmp_path / "a.mp4", (0.0,), [Track(tone(1.0))], video="mjpeg")
    assert media.probe(path).has_video
    import av
    from av.stream import Disposition

    song = tmp_path / "song.m4a"
    with av.open(str(path)) as source, av.open(str(song), "w", format="mp4") as target:
        outs = {}
        for stream in source.streams:
            outs[stream.index] = target.add_stream_from_template(stream)
        outs[source.streams.video[0].index].disposition = Disposition.attached_pic
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = outs[packet.stream.index]
                target.mux(packet)
    info = media.probe(song)
    assert info.has_audio and not info.has_video and info.width == 0
    assert list(media.frames(song)) == []
    assert len(media.audio(song)) == pytest.approx(16000, abs=1100)


def test_what_is_absent_is_empty(tmp_path):
    silent = ODD["no_sound"](tmp_path / "a.mp4")
    assert media.audio(silent).shape == (0,) and list(media.audio_blocks(silent)) == []
    assert len(shown(silent)[0]) == 25
    info = media.probe(silent)
    assert (info.has_video, info.has_audio, info.audio_tracks, info.sample_rate) == (
        True,
        False,
        0,
        0,
    )
    dark = ODD["no_picture"](tmp_path / "b.mp4")
    assert list(media.frames(dark)) == []
    assert len(media.audio(dark)) == pytest.approx(16000, abs=1100)
    info = media.probe(dark)
    assert (info.has_video, info.width, info.fps, info.has_audio) == (False, 0, 0.0, True)


@pytest.mark.filterwarnings("ignore::mertool.errors.MertoolWarning")
@pytest.mark.parametrize("name", sorted(set(ODD) - set(BROKEN)))
def test_odd_files_are_read(tmp_path, name):
    path = ODD[name](tmp_path / "a.mp4")
    info = media.probe(path)
    assert info.duration == pytest.approx(1.4 if "late" in name else 1.0, abs=0.15)
    times, numbers = shown(path)
    assert (len(times) > 0) == info.has_video == (name not in ("no_picture", "telephone"))
    assert numbers == list(range(len(times)))
    if info.has_video:
        assert (info.width, info.height) == (64, 48)
    seconds = len(media.audio(path)) / 16000
    assert seconds == pytest.approx(info.duration if info.has_audio else 0, abs=0.15)


def test_silence_is_zeros(tmp_path):
    sound = media.audio(ODD["silent"](tmp_path / "a.mp4"))
    assert len(sound) > 15000 and not sound.any()


def test_picture_longer_than_sound(tmp_path):
    path = write_media(tmp_path / "a.mp4", steady(3), [Track(tone(1.0))])
    assert len(media.audio(path)) == pytest.approx(16000, abs=1100)
    assert media.audio(path, 16000, 2.0, 2.5).shape == (0,)
    assert shown(path, 2.0)[1] == list(range(50, 75))


def test_length_without_a_header(tmp_path):
    # What a browser records carries no length: written to a pipe, it cannot be filled in.
    path = tmp_path / "a.webm"
    write_media(
        path, steady(2), [Track(tone(2, 48000), 48000)], video="libvpx", audio="libopus", live="1"
    )
    assert media.probe(path).duration == pytest.approx(2.0, abs=0.05)
    assert len(shown(path)[0]) == 50


# ---- what cannot be read


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_so(tmp_path, name):
    path = ODD[name](tmp_path / "clip one.mp4")
    with pytest.raises(MediaError) as caught:
        media.probe(path)
        media.audio(path)
        list(media.frames(path))
    assert path.name in str(caught.value) and caught.value.fix
    expected = {
        "bad_samples": "not finite",
        "empty": "empty",
        "text": "not a video or sound file",
        "cut": "not a video or sound file",  # the index was to come last
        "cut_faststart": "damaged or truncated",
    }
    assert expected[name] in caught.value.what


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".flv", ".wav", ".flac", ".mp3"])
def test_truncated_files_are_never_just_short(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix in (".wav", ".flac", ".mp3"):
        write_wav(path, noisy(4))
    else:
        options = {"movflags": "faststart"} if suffix == ".mp4" else {}
        codecs = {
            ".avi": {"video": "mpeg4", "audio": "pcm_s16le", "ticks": 25},
            ".flv": {"video": "flv1", "audio": "libmp3lame", "ticks": 25},
        }.get(suffix, {})
        rate = 44100 if suffix == ".flv" else 16000
        write_media(path, steady(4), [Track(noisy(4, rate), rate)], **codecs, **options)
    expected = len(media.audio(path))
    assert expected == pytest.approx(64000, abs=1600)
    seen = len(shown(path)[0])
    cut(path)
    with pytest.raises(MediaError, match="damaged or truncated"):
        media.audio(path)
    if seen:
        assert seen == 100
        with pytest.raises(MediaError, match="damaged or truncated"):
            list(media.frames(path))
    if suffix == ".mp4":  # what lies before the cut is there in full
        assert shown(path, 0.2, 0.6)[1] == list(range(5, 15))
        assert len(media.audio(path, 16000, 0.2, 0.6)) == 6400
        with pytest.raises(MediaError):
            list(media.frames(path, 3.0, 3.5))


def test_a_hole_in_the_middle(tmp_path):
    path = write_media(tmp_path / "a.mkv", steady(2), [Track(noisy(2))], audio="flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    path.write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        media.audio(path)


def test_wav_of_undeclared_length(tmp_path):
    # A program that writes to a pipe leaves the largest number where the length belongs.
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert len(media.audio(path)) == 16000


def test_mp3_of_undeclared_length(tmp_path):
    # Silence, then noise, at a variable bit rate: a guess from its beginning would be wrong.
    path = tmp_path / "a.mp3"
    sound = np.concatenate([np.zeros(160000, np.float32), noisy(3)[0]])
    soundfile.write(path, sound, 16000, bitrate_mode="VARIABLE")
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], data.index(b"Xing")) :])
    assert media.probe(path).duration == pytest.approx(13, abs=0.15)
    heard = media.audio(path)
    assert len(heard) == pytest.approx(13 * 16000, abs=0.15 * 16000)
    assert onset(heard) == pytest.approx(10, abs=0.1)
    assert onset(media.audio(path, 16000, 9.5)) == pytest.approx(onset(heard) - 9.5, abs=1e-3)


def test_length_of_tagged_mp3(tmp_path):
    path = write_wav(tmp_path / "a.mp3", click(0.5, 1.0))
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0x40, 0x10])  # 64 * 128 + 16 bytes follow
    path.write_bytes(tag + bytes(64 * 128 + 16) + path.read_bytes())
    assert media.probe(path).duration == 1.0 and len(media.audio(path)) == 16000
    assert onset(media.audio(path)) == pytest.approx(0.5, abs=2e-3)


def test_missing_and_folder(tmp_path):
    for read in (media.probe, media.audio, lambda path: list(media.frames(path))):
        with pytest.raises(MediaError, match="no such"):
            read(tmp_path / "none.mp4")
        with pytest.raises(MediaError, match="folder"):
            read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads it all")
def test_forbidden(tmp_path):
    path = talking(tmp_path / "a.mp4")
    path.chmod(0)
    with pytest.raises(MediaError, match="cannot be opened"):
        media.probe(path)


def test_no_text_file_or_image_is_media(tmp_path):
    # FFmpeg would show both as video.
    text = tmp_path / "notes.txt"
    text.write_text("Some notes.\n" * 100)
    image = write_media(tmp_path / "face.png", (0.0,), video="png", update="1", images=picture)
    for path in (text, image):
        with pytest.raises(MediaError, match=path.name):
            media.probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".wav"])
def test_starts_beyond_the_end(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    talking(path) if suffix == ".mp4" else write_wav(path, tone(1.0))
    with pytest.raises(MediaError, match="starts at 5 s"):
        media.audio(path, 16000, 5.0, 6.0)
    if suffix == ".mp4":
        with pytest.raises(MediaError, match="starts at 5 s"):
            list(media.frames(path, 5.0))
    for start, end in [(0.5, 0.5), (0.5, 0.2), (-1.0, None)]:
        with pytest.raises(MediaError, match="cannot go"):
            media.audio(path, 16000, start, end)
        with pytest.raises(MediaError, match="cannot go"):
            list(media.frames(path, start, end))
    with pytest.raises(UsageError):
        list(media.frames(path, fps=0))


@pytest.mark.parametrize("name", ["two words.mp4", "你好 é ü.mp4", "a:b.mp4", "file:%03d 'q'.mp4"])
def test_file_names(tmp_path, name, monkeypatch):
    talking(tmp_path / "plain.mp4", 0.4).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name)):
        assert media.probe(path).has_video
        assert len(shown(path)[0]) == 10 and len(media.audio(path)) > 6000
    wav = write_wav(tmp_path / name.replace(".mp4", ".wav"), tone(0.4))
    assert len(media.audio(wav)) == 6400


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="open files cannot be counted here")
def test_files_are_closed(tmp_path):
    path = talking(tmp_path / "a.mp4")
    broken = ODD["cut_faststart"](tmp_path / "b.mp4")
    wav = write_wav(tmp_path / "c.wav", tone(5.0))
    before = open_files()
    for _ in range(3):
        media.probe(path), media.probe(wav)
        for read in (media.frames(path), media.audio_blocks(path), media.audio_blocks(wav)):
            next(read)
            read.close()
        with pytest.raises(MediaError):
            media.audio(broken)
        next(media.frames(path, 0.5, 0.6))
    assert open_files() == before


def test_quiet_and_imported_late(tmp_path):
    broken = ODD["cut_faststart"](tmp_path / "b.mp4")
    code = (
        "import sys, mertool.media as m\n"
        "assert not {'av', 'soundfile'} & set(sys.modules)\n"
        "try: list(m.frames(sys.argv[1]))\n"
        "except m.MediaError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(broken)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


# ---- real recordings


@pytest.mark.parametrize("folder", ["grid", "crema_d", "ravdess_video"])
def test_real_videos(shared, folder):
    paths = [p for p in sorted((shared / "data" / folder).iterdir()) if p.suffix in media.SUFFIXES]
    if not paths:
        pytest.skip(f"no {folder} in the shared data")
    for path in paths[:3]:
        info = media.probe(path)
        assert info.has_video and info.has_audio and info.audio_tracks == 1
        times = np.array([time for time, _ in media.frames(path, fps=10)])
        assert times[0] < 0.03 and times[-1] > info.duration - 0.2
        assert abs(len(times) - 10 * info.duration) < 2
        assert len(media.audio(path)) / 16000 == pytest.approx(info.duration, abs=0.05)


def test_real_sound(shared):
    for path in [*sorted((shared / "data/speech").glob("*.wav"))]:
        info, sound = media.probe(path), media.audio(path)
        assert len(sound) == pytest.approx(16000 * info.duration, abs=2)
        assert 0.01 < np.abs(sound).max() <= 1.001
