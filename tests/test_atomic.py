"""Files and folders that are there as a whole or not at all."""

import pytest

from lumiere_jax import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_there_when_it_is_done(tmp_path):
    place = tmp_path / "above" / "made"
    with atomic.written_folder(place) as folder:
        (folder / "a").write_text("1")
        assert not place.exists()
    assert names(place.parent) == ["made"] and names(place) == ["a"]
    assert place.stat().st_mode & 0o777 == 0o755


def test_a_folder_takes_the_place_of_a_former_one(tmp_path):
    place = tmp_path / "made"
    for name in ("former", "present"):
        with atomic.written_folder(place) as folder:
            (folder / name).write_text(name)
            if name == "present":
                assert names(place) == ["former"]
    assert names(tmp_path) == ["made"] and names(place) == ["present"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_of_a_broken_off_folder_nothing_is_left(tmp_path, error):
    place = tmp_path / "made"
    place.mkdir()
    (place / "former").write_text("1")
    with pytest.raises(error), atomic.written_folder(place) as folder:
        (folder / "half").write_text("1")
        raise error
    assert names(tmp_path) == ["made"] and names(place) == ["former"]


def test_of_a_broken_off_file_nothing_is_left(tmp_path):
    place = tmp_path / "a.txt"
    place.write_text("former")
    with pytest.raises(ValueError), atomic.written(place) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert names(tmp_path) == ["a.txt"] and place.read_text() == "former"
    atomic.write_text(place, "whole")
    assert names(tmp_path) == ["a.txt"] and place.read_text() == "whole"
