"""What training sees, as files."""

import numpy as np
from PIL import Image

from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_folder import VideoFolder
from tests.inference.running import run
from tests.tiny_runs import example_config


def test_clips_are_a_folder_of_videos_and_images_with_captions(tmp_path):
    code, stdout, stderr = run(
        "show_data", config="configs/stunet.py:tiny", output=tmp_path, count=3
    )
    assert code == 0, stderr
    data = example_config("stunet").data
    source = create_source(data, "test")
    shape = {"num_frames": data.num_frames, "resolution": data.resolution}
    videos = VideoFolder(tmp_path, **shape, fps=data.fps)
    images = ImageFolder(tmp_path, resolution=data.resolution)
    assert len(videos) == len(images) == 3  # the contact sheet has no caption
    for index, line in enumerate(stdout.splitlines()):
        video, caption = source.example(index * len(source) // 3)  # from all parts
        assert line == f"{tmp_path}/{index:04d}.mp4: {caption}"
        written, same_caption = videos.example(index)
        assert same_caption == caption
        assert np.abs(written - video).mean() < 0.05
        assert images.example(index)[1] == caption
        image = np.asarray(Image.open(tmp_path / f"{index:04d}.png"))
        assert image.shape == (128, 128, 3)  # enlarged to be seen
        np.testing.assert_array_equal(image[::8, ::8], to_uint8(video[0]))
