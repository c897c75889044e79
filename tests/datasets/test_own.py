"""Own data: folders of images and .npz files, their splits, and everything wrong with them."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import pytest
from PIL import Image

from bnnhw import datasets
from bnnhw.datasets.folder import read_image
from bnnhw.datasets.resize import resized
from bnnhw.errors import UserError

PIXELS = np.random.default_rng(7)


def picture(path, *, size=(6, 5), mode="L", kind=None):
    """Writes a random image of a (height, width) and a Pillow mode. Returns its array."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = PIXELS.integers(0, 256, (*size, *channels), np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, kind)
    return pixels


def folder(path, count=10, classes=("cat", "dog"), **kind):
    """Writes class folders of so many images. Returns {(class, file name): array}."""
    return {
        (name, f"{at}.png"): picture(path / name / f"{at}.png", **kind)
        for name in classes
        for at in range(count)
    }


def test_a_folder_is_split_once_and_for_all(tmp_path):
    written = folder(tmp_path / "pets", count=10)
    source = datasets.find(tmp_path / "pets")
    assert source.name == "pets" and source.size() == ((6, 5, 1), 2)
    parts = {split: source.load(split) for split in datasets.SPLITS}
    assert [len(part) for part in parts.values()] == [14, 2, 4]
    seen = []
    for part in parts.values():
        assert part.names == ("cat", "dog") and part.classes == 2
        assert part.pixels.dtype == np.uint8 and part.labels.dtype == np.int64
        assert set(part.labels) == {0, 1}  # each class is split by itself
        seen += [
            (label, image.tobytes()) for label, image in zip(part.labels, part.pixels, strict=True)
        ]
    classes = ("cat", "dog")
    assert sorted(seen) == sorted(
        (classes.index(name), pixels.tobytes()) for (name, _), pixels in written.items()
    )
    again = datasets.find(tmp_path / "pets").load("train")
    assert np.array_equal(again.pixels, parts["train"].pixels)
    assert again.digest() == parts["train"].digest() != parts["test"].digest()


def test_train_and_test_folders_keep_apart(tmp_path):
    folder(tmp_path / "train", 20, classes=("10", "9", "2"))
    test = folder(tmp_path / "test", 3, classes=("10", "9", "2"))
    source = datasets.find(tmp_path)
    loaded = source.load("test")
    assert loaded.names == ("2", "9", "10")  # numbers in their order
    assert sorted(map(bytes, loaded.pixels)) == sorted(p.tobytes() for p in test.values())
    assert [len(source.load(split)) for split in ("train", "validation")] == [54, 6]
    folder(tmp_path / "validation", 1, classes=("10", "9", "2"))
    assert [len(source.load(split)) for split in datasets.SPLITS] == [60, 3, 9]
    folder(tmp_path / "test", 1, classes=("11",))
    with pytest.raises(UserError, match="only one of train and test has the class '11'"):
        source.load("test")


def test_files_of_every_kind_keep_their_pixels(tmp_path):
    gray = picture(tmp_path / "gray.png")
    assert np.array_equal(read_image(tmp_path / "gray.png"), gray[..., None])
    colour = picture(tmp_path / "colour.PNG", mode="RGB")
    assert np.array_equal(read_image(tmp_path / "colour.PNG"), colour)
    opaque = picture(tmp_path / "opaque.png", mode="RGBA")
    assert np.array_equal(read_image(tmp_path / "opaque.png"), opaque[..., :3])
    palette = Image.fromarray(colour).quantize(8)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    flat = Image.fromarray(np.full((8, 16, 3), (200, 30, 60), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    flat.save(tmp_path / "photo.jpg", exif=turned, quality=95)
    photo = read_image(tmp_path / "photo.jpg")
    assert photo.shape == (16, 8, 3)
    assert np.abs(photo.astype(int) - (200, 30, 60)).max() < 8


def test_gray_among_colour_becomes_colour(tmp_path):
    folder(tmp_path, 3, classes=("a",), mode="RGB")
    gray = folder(tmp_path, 3, classes=("b",))
    loaded = [datasets.find(tmp_path).load(split) for split in datasets.SPLITS]
    assert {part.pixels.shape[1:] for part in loaded} == {(6, 5, 3)}
    found = np.concatenate([part.pixels[part.labels == 1] for part in loaded])
    assert np.array_equal(found[..., 0], found[..., 2])
    assert sorted(map(bytes, found[..., 0])) == sorted(p.tobytes() for p in gray.values())


def test_sizes_are_mixed_only_if_asked(tmp_path):
    folder(tmp_path, 6)
    picture(tmp_path / "dog" / "wide.jpg", size=(12, 10), mode="RGB", kind="JPEG")
    source = datasets.find(tmp_path)
    with pytest.raises(UserError, match=r"is (6x5|12x10), .* is (6x5|12x10).*or --resize"):
        for split in datasets.SPLITS:
            source.load(split)
    for shape in ((7, 7, 1), (6, 5, 3)):
        assert source.load("train", shape).pixels.shape[1:] == shape
    with pytest.raises(UserError, match="1 channels cannot become 2|3 channels cannot become 2"):
        source.load("train", (6, 5, 2))


def test_resizing_is_exact_where_it_can_be():
    image = PIXELS.integers(0, 256, (4, 6, 5), np.uint8)
    assert resized(image, (4, 6, 5)) is image
    flat = np.full((9, 9, 5), 77, np.uint8)
    assert np.array_equal(resized(flat, (4, 13, 5)), np.full((4, 13, 5), 77))
    assert np.array_equal(resized(image[..., :1], (4, 6, 3)), np.repeat(image[..., :1], 3, 2))
    grey = resized(np.full((2, 2, 3), (255, 0, 128), np.uint8), (2, 2, 1))
    assert grey.tolist() == [[[91]] * 2] * 2  # 0.299 * 255 + 0.114 * 128 = 90.8
    rows = np.arange(0, 200, 50, dtype=np.uint8)[:, None, None].repeat(4, 1)
    halves = resized(rows, (2, 2, 1))
    assert halves[0, 0, 0] < halves[1, 0, 0] and (halves[:, 0] == halves[:, 1]).all()


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


X, Y = PIXELS.integers(0, 256, (40, 8, 9, 2), np.uint8), np.arange(40) % 4


def test_an_npz_is_split_or_comes_in_splits(tmp_path):
    one = datasets.find(npz(tmp_path / "one.npz", x=X, y=Y, names=np.array(list("abcd"))))
    assert one.name == "one" and one.size() == ((8, 9, 2), 4)
    parts = [one.load(split) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [28, 4, 8] and parts[0].names == tuple("abcd")
    pairs = {
        (int(y), x.tobytes())
        for part in parts
        for x, y in zip(part.pixels, part.labels, strict=True)
    }
    assert pairs == {(int(y), x.tobytes()) for x, y in zip(X, Y, strict=True)}
    gray = X[..., 0]  # as MNIST's mnist.npz has them
    two = npz(tmp_path / "two.npz", x_train=gray, y_train=Y.astype(np.uint8), x_test=gray[:6],
              y_test=Y[:6])  # fmt: skip
    source = datasets.find(two)
    assert np.array_equal(source.load("test").pixels, gray[:6, ..., None])
    assert [len(source.load(split)) for split in datasets.SPLITS] == [36, 4, 6]
    assert source.load().classes == 4 and source.load().names == ()
    three = npz(tmp_path / "three.npz", x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6],
                x_validation=X[8:13], y_validation=Y[8:13])  # fmt: skip
    source = datasets.find(three)
    assert [len(source.load(split)) for split in datasets.SPLITS] == [40, 5, 6]
    assert np.array_equal(source.load("train").pixels, X)


TRAIN = dict(x_train=X, y_train=Y, x_test=X, y_test=Y)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(a=X), "give either x and y or x_train"),
        (dict(x=X, y=Y, **TRAIN), "give either x and y or x_train"),
        (dict(x=X), "y is missing"),
        (dict(x_train=X, y_train=Y, y_test=Y), "x_test is missing"),
        (dict(x=X / 255, y=Y), r"x is float64 \(40, 8, 9, 2\), must be uint8"),
        (dict(x=X[0, 0], y=Y[:9]), "must be uint8"),
        (dict(x=X[:0], y=Y[:0]), "must be uint8"),
        (dict(x=X, y=Y[:-1]), "must be 40 whole numbers"),
        (dict(x=X, y=Y / 2), "must be 40 whole numbers"),
        (dict(x=X, y=Y[:, None]), r"y is int64 \(40, 1\), must be 40"),
        (dict(x=X, y=Y - 1), "has the label -1; labels go from 0"),
        (dict(x=X, y=Y * 0), "all labels are 0; a network tells two or more"),
        (dict(x=X, y=Y + 1), "no training image has the label 0"),
        (dict(x=X, y=Y * 100), "a label is 300; a network has at most 256 classes"),
        (dict(x=X, y=Y, names=np.array(["a", "b"])), "a label is 3, but there are 2 names"),
        (dict(x=X, y=Y, names=np.array(["a"])), "names: 1 class; a network tells two or more"),
        (dict(x=X, y=Y, names=np.array(list("abca"))), "two classes are named 'a'"),
        (dict(x=X, y=Y, names=np.arange(4)), "names is int64"),
        (dict(x=X, y=np.array([object()] * 40)), "refused, it holds pickled objects"),
        (dict(x=X[:8], y=Y[:8]), "class 0 has 2 images; at least 3 are needed for train, test"),
        (TRAIN | dict(x_test=X[:, :4]), "x_test is .*, x_train has images of"),
        (TRAIN | dict(y_test=Y + 1), "no training image has the label 4"),
    ],
)
def test_a_wrong_npz_is_one_line(tmp_path, arrays, message):
    path = npz(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        datasets.find(path).load("train")
    assert "\n" not in str(caught.value) and "wrong.npz" in str(caught.value)


def test_a_file_that_is_no_npz_is_one_line(tmp_path):
    path = tmp_path / "wrong.npz"
    with pytest.raises(UserError, match="wrong.npz: No such file"):
        datasets.find(path).load()
    np.savez_compressed(path, x=X, y=Y)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="wrong.npz: .*save it with np.savez"):
            datasets.find(path).load()
    damaged = bytearray(whole)
    damaged[200:210] = bytes(10)
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="wrong.npz: damaged or not an .npz"):
        datasets.find(path).load()
    np.save(tmp_path / "alone.npy", X)
    with pytest.raises(UserError, match="alone.npy: not an .npz"):
        datasets.find(tmp_path / "alone.npy").load()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", "no array")
    with pytest.raises(UserError, match="wrong.npz: "):
        datasets.find(path).load()


def write_idx(path, array, *, packed=False, kind=8):
    header = bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.with_name(path.name + ".gz" * packed).write_bytes(
        gzip.compress(content) if packed else content
    )


def test_mnists_files_are_read_gzipped_or_not(tmp_path):
    gray, folder = X[..., 0], tmp_path / "fashion"
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte", gray, packed=True)
    with pytest.raises(UserError, match="fashion: lacks train-labels-idx1-ubyte .or "):
        datasets.find(folder).load()
    write_idx(folder / "train-labels-idx1-ubyte", Y)
    write_idx(folder / "t10k-images-idx3-ubyte", gray[:6])
    write_idx(folder / "t10k-labels-idx1-ubyte", Y[:6], packed=True)
    source = datasets.find(folder)
    assert source.name == "fashion" and source.size() == ((8, 9, 1), 4)
    assert [len(source.load(split)) for split in datasets.SPLITS] == [36, 4, 6]
    test = source.load("test")
    assert np.array_equal(test.pixels, gray[:6, ..., None]) and test.labels.tolist() == [
        *Y[:6].tolist()
    ]
    wrong = {
        "not an IDX file of bytes, or cut off: 431": lambda c: c[:-1],
        "not an IDX file of bytes, or cut off: 433": lambda c: c + b"0",
        "not an IDX file .": lambda c: c[:3],
        "not an IDX file of bytes": lambda c: c[:2] + bytes([13]) + c[3:],
    }
    file = folder / "t10k-images-idx3-ubyte"
    whole = file.read_bytes()
    for message, change in wrong.items():
        file.write_bytes(change(whole))
        with pytest.raises(UserError, match=f"t10k-images-idx3-ubyte: {message}"):
            source.load("test")
    file.write_bytes(whole)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz: Not a gzipped file"):
        source.load("test")


def break_folder(path, kind):
    """Makes a folder of class folders wrong in one way."""
    match kind:
        case "text":
            (path / "dog" / "0.png").write_text("no image")
        case "cut":
            whole = (path / "dog" / "0.png").read_bytes()
            (path / "dog" / "0.png").write_bytes(whole[: len(whole) // 2])
        case "strange":
            (path / "dog" / "notes.txt").write_text("mine")
        case "empty":
            (path / "eel").mkdir()
        case "one":
            for file in (path / "dog").iterdir():
                file.unlink()
            (path / "dog").rmdir()
        case "loose":
            picture(path / "0.png")
        case "few":
            for file in sorted((path / "dog").iterdir())[2:]:
                file.unlink()
        case "deep":
            Image.fromarray(PIXELS.integers(0, 65536, (6, 5), np.uint16)).save(path / "dog/0.png")
        case "transparent":
            Image.new("RGBA", (5, 6), (9, 9, 9, 128)).save(path / "dog" / "0.png")
        case "gif":
            Image.new("L", (5, 6)).save(path / "dog" / "0.png", "GIF")
        case "cmyk":
            Image.new("CMYK", (5, 6)).save(path / "dog" / "0.jpg")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", r"dog/0.png: cannot be read as PNG or JPEG \(it is not one\)"),
        ("cut", "dog/0.png: cannot be read as PNG or JPEG"),
        ("strange", "dog/notes.txt: neither PNG nor JPEG"),
        ("empty", "eel: no images in it"),
        ("one", "1 class; a network tells two or more apart"),
        ("loose", "0.png: an image outside of the class folders"),
        ("few", "class 1 has 2 images; at least 3 are needed"),
        ("deep", "dog/0.png: is of mode I;16"),
        ("transparent", "dog/0.png: has transparent pixels"),
        ("gif", "dog/0.png: cannot be read as PNG or JPEG"),
        ("cmyk", "dog/0.jpg: is of mode CMYK"),
    ],
)
def test_a_wrong_folder_is_one_line(tmp_path, kind, message):
    folder(tmp_path, 5)
    break_folder(tmp_path, kind)
    source = datasets.find(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        for split in datasets.SPLITS:
            source.load(split)
    assert "\n" not in str(caught.value)


def test_hidden_files_are_none(tmp_path):
    folder(tmp_path, 3)
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"of the system")
    (tmp_path / "README.md").write_text("about pets")
    assert len(datasets.find(tmp_path).load("test")) == 2


def test_more_than_256_classes_are_refused(tmp_path):
    for at in range(257):
        (tmp_path / str(at)).mkdir()
    with pytest.raises(UserError, match="257 classes; a network has at most 256"):
        datasets.find(tmp_path).load()


def test_what_is_at_a_path_decides_and_a_name_must_agree(tmp_path):
    assert datasets.find("digits").name == "digits" == datasets.find(None, "digits").name
    assert datasets.find(None, None, "cifar100").name == "cifar100"
    mine = npz(tmp_path / "cifar10.npz", x=X, y=Y)
    assert datasets.find(mine).name == "cifar10-images"  # no other's name
    with pytest.raises(UserError, match="is the data set 'cifar10-images', wanted is 'birds'"):
        datasets.find(mine, "birds")
    with pytest.raises(UserError, match="--data digits: is not the data set cifar10"):
        datasets.find("digits", "cifar10")
    with pytest.raises(UserError, match="nowhere: No such file"):
        datasets.find(tmp_path / "nowhere").load()


def test_a_network_takes_its_size_classes_and_names(tmp_path):
    source = datasets.find(npz(tmp_path / "m.npz", x=X, y=Y, names=np.array(list("abcd"))))
    images = source.fitting("test", (8, 9, 2), 4, names=("a", "b", "c", "d"))
    assert len(images) == 8 and len(source.fitting("test", (8, 9, 2), 4)) == 8
    assert source.fitting("test", (5, 5, 2), 4, resize=True).pixels.shape == (8, 5, 5, 2)
    with pytest.raises(UserError, match="m: images are 8x9x2, the network takes 5x5x2; give --res"):
        source.fitting("test", (5, 5, 2), 4)
    with pytest.raises(UserError, match="m: 2 channels cannot become 3"):
        source.fitting("test", (5, 5, 3), 4, resize=True)
    with pytest.raises(UserError, match="m: has 4 classes, the network 5"):
        source.fitting("test", (8, 9, 2), 5)
    with pytest.raises(UserError, match="m: class 1 is 'b', the network's is 'c'"):
        source.fitting("test", (8, 9, 2), 4, names=("a", "c", "b", "d"))
