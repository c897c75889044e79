import numpy as np
import pytest
from PIL import Image

from bnnhw.errors import UserError
from bnnhw.host.pictures import class_names, read_image, softmax

PIXELS = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)


def test_a_picture_is_read_as_it_is(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", (4, 6, 3)) == PIXELS).all()
    grey = Image.fromarray(PIXELS).convert("L")
    assert (read_image(tmp_path / "a.png", (4, 6, 1))[..., 0] == np.asarray(grey)).all()


def test_another_size_is_refused_by_name_unless_it_is_to_be_scaled(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png: is 6x4 pixels, .* 3x2; give --resize"):
        read_image(tmp_path / "a.png", (2, 3, 3))
    scaled = read_image(tmp_path / "a.png", (2, 3, 3), resize=True)
    assert scaled.shape == (2, 3, 3)
    assert abs(int(scaled[0, 0, 0]) - PIXELS[:2, :2, 0].mean()) <= 1


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_what_is_no_picture(tmp_path, content):
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(UserError, match=r"b.png: .*give a PNG or JPEG file"):
        read_image(tmp_path / "b.png", (2, 3, 3))


def test_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="c.png: No such file"):
        read_image(tmp_path / "c.png", (2, 3, 3))


def test_names_and_shares():
    assert class_names((32, 32, 3), 10)[3] == "cat"
    assert class_names((9, 9, 3), 2) == ("class 0", "class 1")
    shares = softmax((0, 1000, 1000), step=np.log(2) / 1000)
    assert shares == pytest.approx([0.2, 0.4, 0.4])
