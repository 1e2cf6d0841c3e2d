"""CIFAR: three published forms give one data set, nothing damaged is read, and the real CIFAR-100 where it is at hand."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.data import sources
from cifar_tl.data.cifar import published, source
from cifar_tl.data.cifar.files import _ArraysOnly
from cifar_tl.data.cifar.published import CIFAR10, CIFAR100, PublishedFile
from cifar_tl.errors import SourceInvalid, SourceUnavailable
from tests.made_cifar import archive_bytes, made_content, md5, parquet_bytes, pickled_files, write_archive, write_folder, write_parquet

REAL_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data root; nothing can be fetched."""
    monkeypatch.setenv("CIFAR_TL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))

    def no_network(url, target, **_):
        raise SourceUnavailable(f"{url}: no network in this test")

    monkeypatch.setattr(source, "fetch", no_network)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def content():
    return made_content(CIFAR100)


def use(monkeypatch, form, name="cifar100"):
    monkeypatch.setitem(published.FORMATS, name, form)


def write(form_name, content, root):
    """Returns the format whose MD5s fit."""
    if form_name == "parquet":
        write_parquet(content, CIFAR100, root)
        return CIFAR100
    return {"archive": write_archive, "folder": write_folder}[form_name](content, CIFAR100, root)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_addresses_names_and_checksums_are_those_of_torchvision(name):
    from torchvision import datasets

    theirs, ours = getattr(datasets, name), published.FORMATS[name.lower()]
    assert f"{published.ARCHIVE_BASE}/{ours.archive.name}" == theirs.url
    assert (ours.archive.name, ours.archive.md5, ours.folder) == (theirs.filename, theirs.tgz_md5, theirs.base_folder)
    assert [[item.name, item.md5] for item in ours.pickles["train"]] == theirs.train_list
    assert [[item.name, item.md5] for item in ours.pickles["test"]] == theirs.test_list
    assert {"filename": ours.meta.name, "key": ours.names_key, "md5": ours.meta.md5} == theirs.meta


def test_the_lists_of_names_are_whole_and_in_order():
    for form, classes, superclasses in ((CIFAR100, 100, 20), (CIFAR10, 10, 0)):
        assert len(set(form.class_names)) == classes
        assert len(set(form.superclass_names)) == superclasses
        assert list(form.class_names) == sorted(form.class_names)
        assert list(form.superclass_names) == sorted(form.superclass_names)


@pytest.mark.parametrize("form_name", ["archive", "folder", "parquet"])
def test_every_published_form_gives_pixels_labels_and_names(form_name, content, data, monkeypatch):
    use(monkeypatch, write(form_name, content, data))
    assert sources.describe("cifar100").state == "on_disk"
    store = sources.prepare("cifar100")
    for split in ("train", "test"):
        np.testing.assert_array_equal(store[split].images_NHWC, content[split].images_NHWC)
        np.testing.assert_array_equal(store[split].labels_N, content[split].labels_N)
    assert (store.info.title, store.info.resolution) == ("CIFAR-100", 32)
    assert store.info.class_names == CIFAR100.class_names
    assert store.info.superclass_names == CIFAR100.superclass_names
    assert store.info.superclass_of_class == tuple(c // 5 for c in range(100))


def test_equal_data_has_an_equal_fingerprint_in_every_form(content, tmp_path, data, monkeypatch):
    fingerprints = set()
    for form_name in ("archive", "folder", "parquet"):
        monkeypatch.setenv("CIFAR_TL_DATA", str(tmp_path / form_name))
        monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / f"cache-{form_name}"))
        use(monkeypatch, write(form_name, content, tmp_path / form_name))
        fingerprints.add(sources.prepare("cifar100").info.fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.parametrize("form_name", ["archive", "folder", "parquet"])
def test_cifar10_is_read_alike_and_has_no_superclasses(form_name, data, monkeypatch):
    content = made_content(CIFAR10, train_per_class=3)
    writers = {"archive": write_archive, "folder": write_folder, "parquet": write_parquet}
    use(monkeypatch, writers[form_name](content, CIFAR10, data) or CIFAR10, "cifar10")
    store = sources.prepare("cifar10")
    np.testing.assert_array_equal(store["train"].images_NHWC, content["train"].images_NHWC)
    np.testing.assert_array_equal(store["train"].labels_N, content["train"].labels_N)
    assert (store.info.title, store.info.class_names, store.info.superclass_names) == ("CIFAR-10", CIFAR10.class_names, ())


def test_parquet_without_names_gets_the_published_ones(content, data):
    write_parquet(content, CIFAR100, data, with_names=False)
    assert sources.prepare("cifar100").info.class_names == CIFAR100.class_names


def test_an_archive_with_another_checksum_is_not_read(content, data, monkeypatch):
    write_archive(content, CIFAR100, data)  # whose MD5 is not the published one
    with pytest.raises(SourceUnavailable, match=r"cifar-100-python.tar.gz is damaged: its MD5 is \w+, the published one is eb9058c3"):
        sources.prepare("cifar100")


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_an_unpacked_folder_with_one_changed_file_is_not_read(name, content, data, monkeypatch):
    use(monkeypatch, write_folder(content, CIFAR100, data))
    with (data / "cifar-100-python" / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(SourceUnavailable, match=f"cifar-100-python/{name} is damaged"):
        sources.prepare("cifar100")


def test_a_whole_form_is_used_when_another_is_damaged(content, data, monkeypatch):
    use(monkeypatch, write_folder(content, CIFAR100, data))
    (data / "cifar-100-python" / "meta").write_bytes(b"damaged")
    write_parquet(content, CIFAR100, data)
    assert sources.prepare("cifar100").info.split_sizes == {"train": 200, "test": 100}


def test_an_archive_that_lacks_a_file_is_refused(content, data, monkeypatch):
    files = pickled_files(content, CIFAR100)
    del files["meta"]
    data.mkdir()
    packed = archive_bytes(files, CIFAR100)
    (data / CIFAR100.archive.name).write_bytes(packed)
    use(monkeypatch, replace(CIFAR100, archive=PublishedFile(CIFAR100.archive.name, md5(packed))))
    with pytest.raises(SourceUnavailable, match="has no cifar-100-python/meta inside"):
        sources.prepare("cifar100")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_cut_off_parquet_file_is_refused_by_name(split, content, data):
    write_parquet(content, CIFAR100, data)
    path = CIFAR100.parquet_file(data, split)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceUnavailable, match=f"{split}-00000-of-00001.parquet cannot be read"):
        sources.prepare("cifar100")


def test_a_parquet_file_with_damaged_pages_fails_by_name_and_leaves_no_store(content, data, tmp_path):
    write_parquet(content, CIFAR100, data)
    path = CIFAR100.parquet_file(data, "train")
    damaged = bytearray(path.read_bytes())
    damaged[1000:60_000] = bytes(59_000)
    path.write_bytes(damaged)
    with pytest.raises(SourceInvalid, match=r"train-00000-of-00001.parquet"):
        sources.prepare("cifar100")
    assert [entry.name for entry in (tmp_path / "cache" / "stores").iterdir()] == [".cifar100-v1.lock"]


def test_a_parquet_file_without_its_label_column_is_refused(content, data):
    write_parquet(content, replace(CIFAR100, labels_column="other"), data)
    with pytest.raises(SourceInvalid, match="cannot be read"):
        sources.prepare("cifar100")


def test_labels_out_of_range_are_refused(content, data):
    bad = replace(content["train"], labels_N=content["train"].labels_N + 1)
    write_parquet(content | {"train": bad}, CIFAR100, data)
    with pytest.raises(SourceInvalid, match=r"labels of train are not within 0\.\.99"):
        sources.prepare("cifar100")


def test_a_class_in_two_superclasses_is_refused(content, data):
    superclasses = content["train"].superclass_labels_N.copy()
    superclasses[0] = 19
    write_parquet(content | {"train": replace(content["train"], superclass_labels_N=superclasses)}, CIFAR100, data)
    with pytest.raises(SourceInvalid, match="in different superclasses"):
        sources.prepare("cifar100")


def test_images_of_another_size_are_refused_with_their_row(content, data):
    small = replace(content["test"], images_NHWC=content["test"].images_NHWC[:, :30])
    write_parquet(content, CIFAR100, data)
    CIFAR100.parquet_file(data, "test").write_bytes(parquet_bytes(small, CIFAR100))
    with pytest.raises(SourceInvalid, match="row 0: the image has 32 x 30 pixels"):
        sources.prepare("cifar100")


def test_a_pickle_may_build_arrays_and_nothing_else(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    import io

    with pytest.raises(SourceInvalid, match=r"wants to run \w+\.mkdir"):
        _ArraysOnly(io.BytesIO(pickle.dumps({"data": Attack()}, protocol=2)), encoding="latin1").load()
    assert not (tmp_path / "attacked").exists()
    array = np.arange(6, dtype=np.uint8)
    np.testing.assert_array_equal(_ArraysOnly(io.BytesIO(pickle.dumps(array, protocol=2)), encoding="latin1").load(), array)


def test_describe_reads_no_image(content, data, monkeypatch):
    write_parquet(content, CIFAR100, data)
    monkeypatch.setattr("cifar_tl.data.cifar.files._parquet", lambda path: pytest.fail("opened"))
    status = sources.describe("cifar100")
    assert (status.state, str(data / "cifar100") in status.message) == ("on_disk", True)


def test_describe_tells_the_size_of_a_download(data):
    status = sources.describe("cifar10")
    assert status.state == "download"
    assert "170 MB will be downloaded from www.cs.toronto.edu" in status.message


@pytest.fixture(scope="module")
def real_store(tmp_path_factory):
    if not (REAL_DATA / "cifar100").is_dir():
        pytest.skip(f"the real CIFAR-100 is not in {REAL_DATA}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_DATA", str(REAL_DATA))
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return sources.prepare("cifar100")


def test_the_real_cifar100_has_every_image_of_every_class(real_store):
    np.testing.assert_array_equal(np.bincount(real_store["train"].labels_N), [500] * 100)
    np.testing.assert_array_equal(np.bincount(real_store["test"].labels_N), [100] * 100)
    assert real_store["train"].images_NHWC.shape == (50_000, 32, 32, 3)


def test_the_real_cifar100_has_the_published_names_and_superclasses(real_store):
    info = real_store.info
    assert info.class_names == CIFAR100.class_names
    assert info.superclass_names == CIFAR100.superclass_names
    assert np.bincount(info.superclass_of_class).tolist() == [5] * 20
    members = {name: info.superclass_names[info.superclass_of_class[i]] for i, name in enumerate(info.class_names)}
    # https://www.cs.toronto.edu/~kriz/cifar.html
    assert {name for name, of in members.items() if of == "trees"} == {"maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"}
    assert {name for name, of in members.items() if of == "fish"} == {"aquarium_fish", "flatfish", "ray", "shark", "trout"}
    assert members["lawn_mower"] == "vehicles_2"


def test_the_real_cifar100_has_its_well_known_mean_and_deviation(real_store):
    # The constants in common use: mean 0.5071, 0.4865, 0.4409, standard deviation 0.2673, 0.2564, 0.2762.
    pixels = real_store["train"].images_NHWC.reshape(-1, 3)[::7] / 255
    np.testing.assert_allclose(pixels.mean(0), [0.5071, 0.4865, 0.4409], atol=0.002)
    np.testing.assert_allclose(pixels.std(0), [0.2673, 0.2564, 0.2762], atol=0.002)
