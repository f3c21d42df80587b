import pytest

from mertool.errors import DataError
from mertool.manifest import cells, read
from mertool.types import Label


@pytest.fixture
def folder(tmp_path):
    """A folder of empty files: reading a manifest opens no media."""
    for name in ("a.mp4", "b.wav", "sub/c.mkv", "notes.md", ".hidden.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def write(folder, text, name="manifest.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_folder_without_manifest(folder):
    (folder / "a.txt").write_text("hello  there\n")
    found = read([folder])
    assert [c.id for c in found.clips] == ["a", "b", "sub/c"]
    assert [c.path for c in found.clips] == ["a.mp4", "b.wav", "sub/c.mkv"]
    assert [c.text for c in found.clips] == ["", "", ""]
    assert found.transcripts == {"a": folder / "a.txt"}  # named, not read
    assert all(c.source == str(folder) and c.media.exists() for c in found.clips)
    assert read([folder], sidecar=False).transcripts == {}
    assert found.name == folder.name


def test_a_sidecar_without_times_is_of_the_whole_file(folder):
    (folder / "a.txt").write_text("all of it")
    write(folder, "clip_id,path,start,end\n1,a.mp4,,\n2,a.mp4,1,2\n3,a.mp4,1,\n4,a.mp4,,2\n")
    assert read([folder]).transcripts == {"1": folder / "a.txt"}


def test_a_sidecar_with_times_is_of_parts_too(folder):
    (folder / "a.txt").write_text("all of it")
    (folder / "a.srt").touch()
    write(folder, "clip_id,path,start,end,text\n1,a.mp4,,,\n2,a.mp4,1,2,\n3,a.mp4,1,2,mine\n")
    assert read([folder]).transcripts == {"1": folder / "a.srt", "2": folder / "a.srt"}


def test_the_column_transcript(folder):
    (folder / "b.srt").touch()
    (folder / "sub" / "all.json").write_text("{}")
    lines = "1,a.mp4,sub/all.json,mine\n2,b.wav,,\n3,b.wav,sub/all.json,\n"
    manifest = write(folder, f"clip_id,path,transcript,text\n{lines}")
    found = read([folder])
    every = folder / "sub" / "all.json"
    assert found.transcripts == {"1": every, "2": folder / "b.srt", "3": every}
    assert found.labels == [] and found.clips[0].text == "mine"
    assert read([folder], sidecar=False).transcripts == {}
    assert cells(manifest)["1"]["transcript"] == "sub/all.json"
    refused(
        folder,
        "clip_id,path,transcript\n1,a.mp4,\n2,b.wav,b.vtt\n",
        "transcript file is missing",
        "line 3: b.vtt",
    )
    refused(folder, "clip_id,path,transcript\n1,a.mp4,sub\n", "line 2: sub")  # a folder


def test_transcripts_of_a_manifest_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "b.srt").touch()
    manifest = write(elsewhere, "clip_id,path,transcript\nx,a.mp4,b.srt\n", "list.csv")
    assert read([folder], manifest).transcripts == {"x": folder / "b.srt"}
    (elsewhere / "b.srt").touch()  # a file beside the manifest comes first
    assert read([folder], manifest).transcripts == {"x": elsewhere / "b.srt"}


def test_cells_are_those_of_the_line(folder):
    path = write(folder, "clip_id,path,note\n1,a.mp4,x\n2,b.wav,y\n")
    assert cells(path)["2"] == {"clip_id": "2", "path": "b.wav", "note": "y"}
    path = write(folder, "video_id,clip_id,text,label,mode\nv,3,hi,1,train\n", "label.csv")
    assert cells(path) == {
        "v$_$3": {"video_id": "v", "clip_id": "3", "text": "hi", "label": "1", "mode": "train"}
    }


def test_single_files(folder):
    found = read([folder / "sub" / "c.mkv", folder / "a.mp4"])
    assert [(c.id, c.path) for c in found.clips] == [("c", "c.mkv"), ("a", "a.mp4")]


def test_manifest_of_a_folder_is_used_by_itself(folder):
    write(
        folder,
        "clip_id,path,start,end,text,language,speaker,split,score,mood,traits,empty\n"
        "2,b.wav,0.5,1.5,hi,en,ann,dev,1.5,sad,x|y,\n"
        "1,a.mp4,,,,,bob,train,-2,glad,y,\n"
        "3,a.mp4,2,3,,,,test,,,,\n",
    )
    found = read([folder])
    assert [c.id for c in found.clips] == ["2", "1", "3"]  # manifest order
    first = found.clips[0]
    assert (first.start, first.end, first.text, first.language) == (0.5, 1.5, "hi", "en")
    assert [c.split for c in found.clips] == ["valid", "train", "test"]
    assert found.ignored == 1  # sub/c.mkv
    assert found.labels == [
        Label("score", "regression", (), (-2.0, 1.5)),
        Label("mood", "classification", ("glad", "sad")),
        Label("traits", "multilabel", ("x", "y")),
    ]
    assert first.labels == {"score": 1.5, "mood": 1, "traits": [1, 1]}
    assert found.clips[1].labels == {"score": -2.0, "mood": 0, "traits": [0, 1]}
    assert found.clips[2].labels == {}


def test_manifest_option_and_paths_relative_to_it(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    manifest = write(elsewhere, "clip_id,path\nx,a.mp4\n", "list.csv")
    found = read([folder], manifest)
    assert found.clips[0].media == folder / "a.mp4" and found.ignored == 2
    # A file beside the manifest comes first.
    (elsewhere / "a.mp4").touch()
    assert read([folder], manifest).clips[0].media == elsewhere / "a.mp4"


def test_a_csv_as_source(folder):
    manifest = write(folder, "clip_id,path\nx,a.mp4\n", "list.csv")
    assert read([manifest]).clips[0].media == folder / "a.mp4"


def test_numbers_with_one_word_are_classes(folder):
    write(folder, "clip_id,path,level\n1,a.mp4,3\n2,b.wav,high\n")
    assert read([folder]).labels == [Label("level", "classification", ("3", "high"))]


def test_mmsa_label_csv(tmp_path):
    (tmp_path / "Raw" / "vid1").mkdir(parents=True)
    (tmp_path / "Raw" / "vid1" / "3.mp4").touch()
    write(
        tmp_path,
        "video_id,clip_id,text,label,annotation,mode\nvid1,3,hello,0.5,Positive,valid\n"
        "vid1,4,bye,-1,Negative,test\n",
        "label.csv",
    )
    found = read([tmp_path])
    assert [c.id for c in found.clips] == ["vid1$_$3", "vid1$_$4"]
    assert found.clips[0].media == tmp_path / "Raw" / "vid1" / "3.mp4"
    assert found.clips[0].split == "valid" and found.clips[0].speaker == "vid1"
    assert [x.task for x in found.labels] == ["regression", "classification"]


def test_a_label_csv_of_another_kind_is_no_manifest(folder):
    write(folder, "name,val\nx,1\n", "label.csv")
    assert len(read([folder]).clips) == 3


def refused(folder, text, *parts):
    write(folder, text)
    with pytest.raises(DataError) as caught:
        read([folder])
    for part in parts:
        assert part in str(caught.value)


def test_what_is_refused(folder):
    refused(folder, "clip_id,file\n1,a.mp4\n", "lacks the column path", "manifest.csv")
    refused(folder, "", "lacks the column clip_id and path")
    refused(
        folder,
        "clip_id,path\n1,a.mp4\n2,b.wav\n1,sub/c.mkv\n",
        'the id "1"',
        "line 2",
        "line 4",
    )
    refused(folder, "clip_id,path\n,a.mp4\n", "no clip_id", "line 2")
    refused(folder, "clip_id,path,split\n1,a.mp4,tset\n", 'no split "tset"', "line 2")
    refused(folder, "clip_id,path,start\n1,a.mp4,soon\n", "start", "soon", "line 2")
    refused(folder, "clip_id,path,start,end\n1,a.mp4,3,2\n", "ends before it starts")
    refused(folder, "clip_id,path\n1,a.mp4,x,y\n", "as many cells", "line 2")
    refused(folder, "clip_id,path,a/b\n1,a.mp4,1\n", "'a/b'")
    refused(folder, "clip_id,path,x,x\n1,a.mp4,1,2\n", "'x'")
    refused(folder, "clip_id,path\n", "No clips are found")


def test_bytes_that_are_no_text(folder):
    (folder / "manifest.csv").write_bytes(b"clip_id,path\n\xff\xfe\x00,x\n")
    with pytest.raises(DataError, match="UTF-8"):
        read([folder])


def test_two_files_of_one_name(folder):
    (folder / "a.wav").touch()
    with pytest.raises(DataError) as caught:
        read([folder])
    assert "a.mp4" in caught.value.where and "a.wav" in caught.value.where


def test_missing_source_and_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read([tmp_path / "none"])
    with pytest.raises(DataError, match="No clips"):
        read([tmp_path])


def test_excel_byte_order_mark(folder):
    (folder / "manifest.csv").write_text("clip_id,path\n1,a.mp4\n", encoding="utf-8-sig")
    assert read([folder]).clips[0].id == "1"
