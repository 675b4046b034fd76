"""Every format gives the same sound; nothing but sound is taken; and a decoder's fault stays its own."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from audio_files import contain, decode, encode, reencode, tone
from decoder_processes import children_of, wait_for
from loopback import LoopbackServer
from parakeet_worker.audio.formats.container import CHILDREN
from parakeet_worker.audio.formats.ogg import is_chained
from parakeet_worker.audio.formats.sndfile import _Seekable
from parakeet_worker.audio.formats.sniff import SUPPORTED_FORMATS, past_tags, sniff
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError
from project import SPEECH

CLIP = SPEECH / "clip03.flac"
SAMPLES = soundfile.read(CLIP, dtype="float32")[0]

FILES = {
    "AIFF": lambda: reencode(CLIP.read_bytes(), 44_100, 2, "AIFF", "PCM_16"),
    "CAF": lambda: reencode(CLIP.read_bytes(), 44_100, 1, "CAF", "PCM_24"),
    "CAF, Apple Lossless": lambda: reencode(CLIP.read_bytes(), 44_100, 2, "CAF", "ALAC_16"),
    "MP3": lambda: reencode(CLIP.read_bytes(), 44_100, 2, "MP3", None),
    "Ogg Vorbis": lambda: reencode(CLIP.read_bytes(), 48_000, 2, "OGG", "VORBIS"),
    "Ogg Opus": lambda: reencode(CLIP.read_bytes(), 48_000, 1, "OGG", "OPUS"),
    "M4A": lambda: contain(SAMPLES, "ipod", "aac", 44_100),
    "M4A, index first": lambda: contain(SAMPLES, "ipod", "aac", 44_100, movflags="faststart"),
    "MP4, in fragments": lambda: contain(SAMPLES, "mp4", "aac", movflags="frag_keyframe+empty_moov"),
    "Apple Lossless": lambda: contain(SAMPLES, "ipod", "alac", 44_100),
    "QuickTime": lambda: contain(SAMPLES, "mov", "pcm_s16le", 44_100),
    "WebM": lambda: contain(SAMPLES, "webm", "libopus"),
    "Matroska": lambda: contain(SAMPLES, "matroska", "aac"),
    "AAC": lambda: contain(SAMPLES, "adts", "aac", 44_100),
    "AMR": lambda: contain(SAMPLES, "amr", "libopencore_amrnb", 8_000, "mono"),
    "WMA": lambda: contain(SAMPLES, "asf", "wmav2", 44_100),
    "AVI": lambda: contain(SAMPLES, "avi", "libmp3lame", 44_100),
    "MPEG-TS": lambda: contain(SAMPLES, "mpegts", "aac"),
}


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest correlation of two recordings that may be shifted against each other by a tenth of a second."""
    size = 1 << 18
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)), size)
    near = np.concatenate([product[:1_600], product[-1_600:]])
    return float(near.max() / np.sqrt(np.square(found).sum() * np.square(expected).sum()))


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_sound(name: Any) -> None:
    audio = decode(FILES[name]())
    assert likeness(audio.samples, SAMPLES) > (0.65 if name == "AMR" else 0.93)  # which is for telephones
    assert audio.duration == pytest.approx(len(SAMPLES) / 16_000, abs=0.15)
    assert len(audio.samples) / 16_000 == pytest.approx(audio.duration, abs=0.01)
    assert audio.sample_rate in (8_000, 16_000, 44_100, 48_000)


def test_the_formats_that_callers_are_told() -> None:
    assert SUPPORTED_FORMATS[:2] == ("WAV", "FLAC")
    assert len(set(SUPPORTED_FORMATS)) == len(SUPPORTED_FORMATS)


def test_an_mp3_behind_a_large_tag_and_with_one_at_its_end() -> None:
    tag = b"ID3\x04\x00\x00\x00\x03\x00\x00" + bytes(3 << 14)
    audio = decode(tag + FILES["MP3"]() + b"TAG" + b"title".ljust(125))
    assert likeness(audio.samples, SAMPLES) > 0.93


@pytest.mark.parametrize(
    "make",
    [
        lambda samples: encode(samples, container="MP3"),
        lambda samples: contain(samples, "mp3", "libmp3lame"),
        lambda samples: contain(samples, "mp3", "libmp3lame", write_xing=0),  # type: ignore[arg-type]
        lambda samples: encode(samples, container="OGG", subtype="VORBIS"),
        lambda samples: contain(samples, "ogg", "libopus"),
        lambda samples: contain(samples, "adts", "aac", 16_000, "mono"),
        lambda samples: contain(samples, "webm", "libopus"),
        lambda samples: contain(samples, "amr", "libopencore_amrnb", 8_000, "mono"),
    ],
)
def test_files_that_are_joined_are_read_to_the_end(make: Any) -> None:
    assert decode(make(tone(2.0)) + make(tone(3.0))).duration == pytest.approx(5.0, abs=0.2)


def test_what_is_behind_one_recording_does_not_make_it_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_worker.audio.decode.ContainerFile", None)
    assert decode(contain(SAMPLES, "ogg", "libopus") + bytes(500)).duration > 4


@pytest.mark.parametrize("name", ["MP3", "MPEG-TS"])
def test_a_stream_may_begin_anywhere(name: Any) -> None:
    data = FILES[name]()
    for start in (188 * 3, 1_000, 2_345) if name != "MPEG-TS" else (188 * 3,):
        audio = decode(data[start:])
        assert audio.duration == pytest.approx(len(SAMPLES) / 16_000, abs=0.4)


NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 160_000).astype(np.float32)
SILENCE = np.zeros(160_000, np.float32)


@pytest.mark.parametrize("samples", [np.append(NOISE, SILENCE), np.append(SILENCE, NOISE)], ids=["loud", "quiet"])
@pytest.mark.parametrize(
    "make",
    [
        lambda samples: contain(samples, "mp3", "libmp3lame", 16_000, "mono", quality=2, write_xing=0),  # type: ignore[arg-type]
        lambda samples: contain(samples, "mp3", "libmp3lame", 44_100, quality=2, write_xing=0),  # type: ignore[arg-type]
        lambda samples: contain(samples, "mp3", "libmp3lame", 44_100, quality=2, write_xing=0) + b"TAG" + bytes(125),  # type: ignore[arg-type]
        lambda samples: contain(samples, "adts", "aac", 44_100),
    ],
)
def test_a_stream_without_a_header_is_as_long_as_it_is_whatever_its_first_frames_are(make: Any, samples: Any) -> None:
    audio = decode(make(samples))
    assert audio.duration == pytest.approx(20, abs=0.2)
    assert audio.declared == pytest.approx(20, abs=0.2)


def test_a_file_of_nothing_but_tags_is_not_searched_to_its_end() -> None:
    assert past_tags(io.BytesIO(b"ID3\x04\x00\x00\x00\x00\x00\x00" * 200)) == 1_000


def test_a_file_of_nothing_but_chunks_is_left_soon() -> None:
    started = time.process_time()
    refusal(b"RIFF\x00\x00\x00\x00WAVE" + b"junk\x00\x00\x00\x00" * 5_000_000)
    assert time.process_time() - started < 1


def test_looking_for_another_recording_ends_with_the_job() -> None:
    cancellation = CancellationToken()
    cancellation.cancel()
    file = io.BytesIO(FILES["Ogg Vorbis"]())
    kind = sniff(file)
    assert kind
    with pytest.raises(JobCancelledError):
        is_chained(file, cancellation)


@pytest.mark.parametrize("end", [b"Xing", b"Info", b"VBRI" + bytes(212) + b"Xing"])
def test_an_mp3_that_ends_within_its_header_is_damaged(end: Any) -> None:
    assert refusal(b"\xff\xfb\x90\x00" + bytes(32) + end).code in (Code.CORRUPT_AUDIO, Code.EMPTY_AUDIO)


def test_an_mp3_behind_junk() -> None:
    assert decode(b"\x00\x12junk" * 100 + FILES["MP3"]()).duration > 4


def edited(
    samples: np.ndarray,
    container: str,
    codec: str,
    edit: Callable[[float], float | None] = lambda time: time,
    video: float = 0.0,
    **options: str,
) -> bytes:
    """Put samples into a container, with as many seconds of video.

    `edit` returns another time for the packet of a time in seconds, or None to leave it out.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=48_000, layout="mono")
        picture: Any = output.add_stream("mpeg4", rate=25) if video else None
        if video:
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
            for _ in range(round(video * 25)):
                output.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 48_000, stream.codec_context.frame_size)
        frames = resampler.resample(frame) + resampler.resample(None)
        for packet in [packet for each in [*frames, None] for packet in stream.encode(each)]:
            time = edit(float(packet.pts * packet.time_base))
            if time is not None:
                packet.pts = packet.dts = round(time / packet.time_base)
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("webm", "libopus", {}),
        ("webm", "libopus", {"live": "1"}),  # without a length, as browsers record
        ("matroska", "aac", {}),
        ("ipod", "aac", {}),
        ("mpegts", "aac", {}),
    ],
)
def test_what_a_recorder_left_out_is_silence(container: Any, codec: Any, options: Any) -> None:
    samples = np.tile(SAMPLES, 3)
    data = edited(samples, container, codec, lambda time: None if 2 <= time < 12 else time, **options)
    audio = decode(data)
    assert audio.duration == pytest.approx(len(samples) / 16_000, abs=0.15)
    # Each side by itself: Matroska's times are in milliseconds, of which half a one moves a wave against another.
    for part in (slice(0, 2 * 16_000), slice(12 * 16_000, len(samples))):
        assert likeness(audio.samples[part], samples[part]) > 0.93
    assert not np.abs(audio.samples[round(2.2 * 16_000) : round(11.8 * 16_000)]).any()


def test_packets_that_are_lost_here_and_there_move_no_word() -> None:
    samples = np.concatenate([tone(1.0), np.zeros(30 * 16_000, np.float32), tone(1.0)])
    data = edited(samples, "webm", "libopus", lambda time: None if round(time * 50) % 10 == 0 else time)
    audio = decode(data)
    (loud,) = np.nonzero(np.abs(audio.samples[2 * 16_000 :]) > 0.05)
    assert 2 + loud[0] / 16_000 == pytest.approx(31, abs=0.12)


@pytest.mark.parametrize(("later", "gap"), [(5_000, 5_000), (20_000, 0)])
@pytest.mark.parametrize("live", ["0", "1"])
def test_a_gap_of_more_than_four_hours_is_a_damaged_time(monkeypatch: Any, live: Any, later: Any, gap: Any) -> None:
    monkeypatch.setattr("parakeet_worker.audio.decode._LEAST_SHARE", 0.0)  # so much of the file is missing then
    audio = decode(edited(SAMPLES, "webm", "libopus", lambda time: time + later * (time > 2), live=live))
    assert audio.duration == pytest.approx(len(SAMPLES) / 16_000 + gap, abs=0.15)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_sound_that_begins_after_the_picture(container: Any) -> None:
    audio = decode(edited(SAMPLES, container, "aac", lambda time: time + 3, video=9))
    assert audio.duration == pytest.approx(len(SAMPLES) / 16_000 + 3, abs=0.15)
    assert likeness(audio.samples, np.pad(SAMPLES, (3 * 16_000, 0))) > 0.93


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_sound_that_ends_before_the_picture(container: Any) -> None:
    assert decode(edited(SAMPLES, container, "aac", video=30)).duration == pytest.approx(
        len(SAMPLES) / 16_000, abs=0.15
    )


def refusal(data: bytes) -> JobError:
    with pytest.raises(JobError) as raised:
        decode(data)
    return raised.value


def test_a_file_without_a_sound_track() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25, options={})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode(None))
    error = refusal(file.getvalue())
    assert error.code is Code.UNSUPPORTED_FORMAT
    assert error.message.startswith("the file has no sound track; send WAV, FLAC")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:5,\n{url}\n",
        "ffconcat version 1.0\nfile '{url}'\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "[playlist]\nFile1={url}\n",
        "<smil><body><audio src='{url}'/></body></smil>",
        "<?xml version='1.0'?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>",
        "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "{path}",
    ],
)
@pytest.mark.parametrize("start", ["", "\n", "ID3\x04\x00\x00\x00\x00\x00\x00"])
def test_a_file_that_names_another_opens_nothing(text: Any, start: Any, server: LoopbackServer) -> None:
    data = start + text.format(url=server.url + "/secret.wav", path=CLIP)
    assert refusal(data.encode()).code in (Code.UNSUPPORTED_FORMAT, Code.CORRUPT_AUDIO)
    assert server.requests == []


def test_a_movie_that_names_another_file_opens_nothing() -> None:
    data = FILES["QuickTime"]()
    # A data reference that says "in this file" is made one that names another: `alis` by its flags and its path.
    place = (
        data.index(b"url \x00\x00\x00\x01") if b"url \x00\x00\x00\x01" in data else data.index(b"alis\x00\x00\x00\x01")
    )
    outside = data[:place] + b"url \x00\x00\x00\x00" + data[place + 8 :]
    try:
        audio = decode(outside)
    except JobError as error:
        assert error.code in (Code.CORRUPT_AUDIO, Code.UNSUPPORTED_FORMAT)
    else:
        assert len(audio.samples)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "6.1", "7.1"])
@pytest.mark.parametrize(("container", "codec"), [("matroska", "pcm_s24le"), ("ipod", "aac"), ("mov", "pcm_s16le")])
def test_tracks_of_many_channels(container: Any, codec: Any, layout: Any) -> None:
    audio = decode(contain(tone(1.0), container, codec, 48_000, layout, kbps=384))
    assert audio.duration == pytest.approx(1, abs=0.1)
    assert np.abs(audio.samples).max() > 0.01


@pytest.mark.parametrize("length", [1, 4_096, 12_288, 12_289, 16_000])
def test_apple_lossless_of_any_length_is_read_to_its_end(length: Any) -> None:
    audio = decode(encode(tone(1.0)[:length], container="CAF", subtype="ALAC_16"))
    assert len(audio.samples) == length


@pytest.mark.parametrize("offset", [-1, -(1 << 40), 1 << 62, (1 << 63) - 1])
@pytest.mark.parametrize("whence", [0, 1, 2])
def test_a_place_outside_of_the_file_is_sought_without_a_word(offset: Any, whence: Any) -> None:
    seekable = _Seekable(io.BytesIO(b"1234"))
    seekable.seek(offset, whence)
    assert seekable.tell() >= 0
    assert len(seekable.read(10)) <= 4


def test_less_than_half_of_a_file_is_truncated() -> None:
    data = FILES["M4A, index first"]()
    assert refusal(data[: len(data) * 2 // 5]).code is Code.CORRUPT_AUDIO
    assert decode(data[: len(data) * 9 // 10]).duration > 3.5


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed under /proc")
def test_nothing_is_left_of_a_container(scratch: Path) -> None:
    data = FILES["M4A"]()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        decode(data)
        refusal(data[:100])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert not list(scratch.iterdir())
    wait_for(lambda: children_of(CHILDREN) == [])


def test_long_files_are_decoded_block_by_block() -> None:
    audio = contain(np.tile(tone(1.0), 90), "ipod", "aac", 16_000, "mono", movflags="faststart")
    from parakeet_worker.audio.decode import open_reader

    longest = 0
    with open_reader(io.BytesIO(audio), CancellationToken()) as sound:
        for block in sound.blocks():
            longest = max(longest, len(block))
        assert sound.decoded_seconds == pytest.approx(90, abs=0.2)
    assert longest < 11 * 16_000
