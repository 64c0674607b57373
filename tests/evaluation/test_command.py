"""What ends ``python -m dgml evaluate`` before anything is measured."""


def test_an_output_that_cannot_be_is_refused_before_anything_is_measured(tmp_path, results, failure):
    for path in (tmp_path, tmp_path / "none" / "mine.json"):
        assert "is a folder, or lies in none" in failure(
            "evaluate", "--images", "bundled", "--classical", "--output", str(path)
        )


def test_wrong_folders_end_in_one_line(tmp_path, failure):
    assert "holds no picture" in failure("evaluate", "--images", str(tmp_path))
    (tmp_path / "torn.png").write_bytes(b"not a picture")
    assert "torn.png" in failure("evaluate", "--images", str(tmp_path))
