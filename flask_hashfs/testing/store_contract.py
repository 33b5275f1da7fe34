"""The contract of a store as tests: what every one promises, wherever it keeps its content."""

from __future__ import annotations

import array
import contextlib
import functools
import gzip
import hashlib
import io
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar

import pytest
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from .._storage.predecessor import HashAddress
from .._storage.writer import MEMORY_LIMIT, UploadStream
from .._store.store import HashFS
from ..exceptions import (
    DigestMismatchError,
    FileTooLargeError,
    HashFSError,
    InvalidExtensionError,
    NotStoredError,
)

HELLO = hashlib.sha256(b"hello").hexdigest()
SIZES = (0, 1, 4096, MEMORY_LIMIT, MEMORY_LIMIT + 1, 5 * 1024 * 1024 + 3)
LARGE = MEMORY_LIMIT + 1  # bytes: does not stay in memory

NewStore: TypeAlias = Callable[..., HashFS]
"""Makes an empty store, given options of `HashFS`: depth, width, algorithm, max_size."""

_Test = TypeVar("_Test", bound=Callable[..., None])


@functools.cache
def content(size: int) -> bytes:
    """Return `size` bytes in which no block is like another."""
    return b"".join(n.to_bytes(8, "big") for n in range(size // 8 + 1))[:size]


def id_of(data: bytes) -> str:
    """Return the id of content in a store with the default algorithm."""
    return hashlib.sha256(data).hexdigest()


def read(store: HashFS, file: Any) -> bytes:
    """Return the content of a stored file."""
    with store.open(file) as stream:
        data: bytes = stream.read()
        return data


def assert_holds(store: HashFS, **names: bytes) -> None:
    """Check that `store` has exactly the contents `names`, each under as many paths as given."""
    found = sorted(read(store, path) for path in store.files())
    assert found == sorted(names.values())


def assert_empty(store: HashFS) -> None:
    """Check that nothing is stored in `store`."""
    assert list(store.files()) == []
    assert (store.count(), len(store), store.size()) == (0, 0, 0)


class OnlyRead:
    """A readable object with nothing else."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


class FallsShort(io.RawIOBase):
    """A raw stream that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), 100_000))
        buffer[: len(data)] = data
        return len(data)


class Breaks:
    """A readable object that fails in the middle."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        if not self.left:
            raise OSError("the line is dead")
        self.left -= (piece := min(self.left, 1000))
        return b"x" * piece


class Path8(os.PathLike[str]):
    def __init__(self, path: object) -> None:
        self._path = str(path)

    def __fspath__(self) -> str:
        return self._path


def _file(data: bytes, folder: Path) -> Path:
    path = folder / "source"
    path.write_bytes(data)
    return path


def _open(data: bytes, folder: Path, mode: str, buffering: int = -1) -> Any:
    return open(_file(data, folder), mode, buffering)


def _mapped(data: bytes, folder: Path) -> Any:
    with open(_file(data, folder), "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _temporary(make: Callable[[], Any]) -> Callable[[bytes, Path], Any]:
    def source(data: bytes, folder: Path) -> Any:
        file = make()
        file.write(data)
        return file

    return source


def _zipped(data: bytes, folder: Path) -> Any:
    (folder / "source.gz").write_bytes(gzip.compress(data, 1))
    return gzip.open(folder / "source.gz")


def _upload(data: bytes, store: HashFS) -> UploadStream:
    writer = store.writer()
    writer.write(data)
    return UploadStream(writer)


SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "memoryview, backwards": lambda data, _: memoryview(data[::-1])[::-1],
    "array": lambda data, _: array.array("B", data),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "BytesIO subclass": lambda data, _: type("Mine", (io.BytesIO,), {})(data),
    "str path": lambda data, folder: str(_file(data, folder)),
    "PathLike": lambda data, folder: _file(data, folder),
    "other PathLike": lambda data, folder: Path8(_file(data, folder)),
    "PathLike of bytes": lambda data, folder: type(
        "B", (), {"__fspath__": lambda self: os.fsencode(_file(data, folder))}
    )(),
    "binary file": lambda data, folder: _open(data, folder, "rb"),
    "unbuffered file": lambda data, folder: _open(data, folder, "rb", buffering=0),
    "file to read and write": lambda data, folder: _open(data, folder, "r+b"),
    "named temporary file": _temporary(tempfile.NamedTemporaryFile),
    "spooled temporary file": _temporary(
        functools.partial(tempfile.SpooledTemporaryFile, max_size=100_000)
    ),
    "gzip file": _zipped,
    "FileStorage": lambda data, _: FileStorage(io.BytesIO(data), "name.txt"),
    "only read": lambda data, _: OnlyRead(data),
    "falls short": lambda data, _: FallsShort(data),
    "buffered, not seekable": lambda data, _: io.BufferedReader(FallsShort(data)),
    "generator": lambda data, _: (data[i : i + 9999] for i in range(0, len(data), 9999)),
    "list": lambda data, _: [data[:10], bytearray(data[10:20]), memoryview(data[20:]), b""],
}


def of_the_source(test: _Test) -> _Test:
    """Mark a test whose outcome is decided by what reads the source, not by the store behind it."""
    test.of_the_source = True  # type: ignore[attr-defined]
    return test


class StoreContract:
    """The promises of a store; a subclass whose name begins with ``Test`` runs them with pytest.

    It has to have the fixture ``new_store``, a `NewStore`, and may override the others.
    """

    @pytest.fixture
    def store(self, new_store: NewStore) -> HashFS:
        """An empty store with the options' defaults."""
        return new_store()

    @pytest.fixture
    def may_overwrite(self) -> bool:
        """Whether writers of equal content may all come first, each over the one before."""
        return False

    # -- what is put comes back ----------------------------------------------------------------

    @of_the_source
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kind", SOURCES)
    def test_every_kind_of_input_is_stored(
        self, store: HashFS, kind: str, size: int, tmp_path: Path
    ) -> None:
        data = content(size)
        source = SOURCES[kind](data, tmp_path)
        with contextlib.ExitStack() as stack:
            if hasattr(source, "close"):
                stack.callback(source.close)
            address = store.put(source)
        assert address.id == id_of(data)
        assert not address.is_duplicate
        assert_holds(store, one=data)

    @of_the_source
    def test_a_memory_map_is_stored(self, store: HashFS, tmp_path: Path) -> None:
        with _mapped(content(LARGE), tmp_path) as source:
            assert store.put(source).id == id_of(content(LARGE))

    @of_the_source
    @pytest.mark.parametrize("view", [array.array("d", [1.5, 2.5]), memoryview(b"abcd")[::2]])
    def test_a_buffer_of_any_shape_is_stored_as_its_bytes(self, store: HashFS, view: Any) -> None:
        assert store.put(view).id == id_of(memoryview(view).tobytes())

    @of_the_source
    @pytest.mark.parametrize("size", [0, 3, 300_000])
    def test_text_is_encoded_as_utf_8(self, store: HashFS, size: int) -> None:
        text = "aä€𝄞"[:size] * max(1, size // 4)
        assert store.put(io.StringIO(text)).id == id_of(text.encode())

    @of_the_source
    def test_a_text_file_is_read_as_text(self, store: HashFS, tmp_path: Path) -> None:
        (tmp_path / "latin").write_bytes(b"\xe4\r\n")
        with open(tmp_path / "latin", encoding="latin-1") as file:
            assert store.put(file).id == id_of("ä\n".encode())

    def test_an_address_says_where_it_is(self, store: HashFS) -> None:
        address = store.put(b"hello", "txt")
        assert type(address) is HashAddress
        a, b, c, d, rest = *HELLO[:4], HELLO[4:]
        assert address.id == HELLO
        assert PurePosixPath(address.relpath).parts == (a, b, c, d, f"{rest}.txt")
        assert address.abspath == f"{store.root}/{address.relpath}"

    @pytest.mark.parametrize(
        ("depth", "width", "parts"),
        [
            *((0, 1, 1), (1, 2, 2), (3, 2, 4), (4, 0, 1), (64, 1, 64), (1, 64, 1)),
            *((70, 1, 64), (3, 30, 3)),
        ],
    )
    def test_any_depth_and_width(
        self, new_store: NewStore, depth: int, width: int, parts: int
    ) -> None:
        store = new_store(depth=depth, width=width)
        address = store.put(b"hello", "txt")
        assert len(PurePosixPath(address.relpath).parts) == parts
        assert store.get(HELLO) == address
        assert store.put(b"hello", "asc").is_duplicate
        store.delete(HELLO)
        assert_empty(store)

    @pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512", "blake2b", "sha3_256"])
    def test_any_algorithm(self, new_store: NewStore, algorithm: str) -> None:
        store = new_store(algorithm=algorithm)
        address = store.put(b"hello")
        assert address.id == hashlib.new(algorithm, b"hello").hexdigest()
        assert store.get(address.id) == address

    @pytest.mark.parametrize("algorithm", ["shake_128", "nonsense"])
    def test_an_algorithm_without_digests_of_one_length_is_refused(
        self, new_store: NewStore, algorithm: str
    ) -> None:
        with pytest.raises(ValueError):
            new_store(algorithm=algorithm)

    # -- positions -----------------------------------------------------------------------------

    @of_the_source
    @pytest.mark.parametrize("size", SIZES[1:])
    @pytest.mark.parametrize(
        "kind", ["BytesIO", "BytesIO subclass", "binary file", "unbuffered file", "gzip file"]
    )
    def test_a_seekable_object_is_read_from_its_start_and_its_position_restored(
        self, store: HashFS, kind: str, size: int, tmp_path: Path
    ) -> None:
        with SOURCES[kind](content(size), tmp_path) as file:
            file.seek(size // 2 + 1)
            assert store.put(file).id == id_of(content(size))
            assert file.tell() == size // 2 + 1
            assert store.put(file).is_duplicate

    @of_the_source
    def test_the_position_of_a_text_file_is_restored(self, store: HashFS, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("one\ntwo\n")
        with open(tmp_path / "text") as file:
            file.readline()
            assert store.put(file).id == id_of(b"one\ntwo\n")
            assert file.read() == "two\n"

    @of_the_source
    def test_half_a_text_file_is_not_taken_for_all_of_it(
        self, store: HashFS, tmp_path: Path
    ) -> None:
        (tmp_path / "text").write_text("one\ntwo\n")
        with open(tmp_path / "text") as file:
            next(file)
            with pytest.raises(OSError, match="position"):
                store.put(file)
        assert_empty(store)

    @of_the_source
    def test_what_cannot_be_sought_is_read_from_where_it_is(self, store: HashFS) -> None:
        source = FallsShort(b"before" + content(LARGE))
        source.read(6)
        assert store.put(source).id == id_of(content(LARGE))

    @of_the_source
    @pytest.mark.parametrize(
        "error", [io.UnsupportedOperation, AttributeError, OSError(29, "Illegal seek")]
    )
    def test_what_only_says_that_it_can_be_sought_is_read_from_where_it_is(
        self, store: HashFS, error: Exception
    ) -> None:
        class Says(OnlyRead):
            def seekable(self) -> bool:
                return True

            def tell(self) -> int:
                raise error

        assert store.put(Says(b"hello")).id == HELLO

    @of_the_source
    def test_the_position_is_restored_after_a_failure(self, store: HashFS, tmp_path: Path) -> None:
        with open(_file(content(LARGE), tmp_path), "rb") as file:
            file.seek(7)
            with pytest.raises(FileTooLargeError):
                store.put(file, max_size=1000)
            assert file.tell() == 7

    @of_the_source
    @pytest.mark.parametrize("kind", [io.BytesIO, bytearray])
    def test_a_failed_put_keeps_no_hold_of_its_input(
        self, store: HashFS, kind: Callable[[bytes], Any]
    ) -> None:
        source = kind(content(LARGE))
        with pytest.raises(FileTooLargeError) as caught:
            store.put(source, max_size=1000)
        if isinstance(source, bytearray):
            source.clear()  # a BufferError as long as something looks into it
        else:
            source.close()
        assert caught.value.max_size == 1000

    # -- what cannot be put --------------------------------------------------------------------

    @of_the_source
    @pytest.mark.parametrize("source", [None, 5, object(), 1.5, [1, 2], ["text"], {"a": 1}, {}])
    def test_what_is_not_readable_is_a_type_error(self, store: HashFS, source: Any) -> None:
        with pytest.raises(TypeError):
            store.put(source)
        assert_empty(store)

    @of_the_source
    @pytest.mark.parametrize(
        "path",
        ["", "missing", "/", ".", "/dev/null", "/etc/hostname/x", "x" * 300, "x\0y", "\ud800"],
    )
    def test_a_path_that_names_no_file_is_a_value_error(
        self, store: HashFS, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for source in (path, Path8(path)):
            with pytest.raises(ValueError, match="must be a valid file path"):
                store.put(source)
        assert_empty(store)

    @of_the_source
    def test_a_fifo_is_no_file_and_nobody_waits(self, store: HashFS, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ValueError):
            store.put(tmp_path / "fifo")

    @of_the_source
    def test_a_path_that_is_no_utf_8_is_a_path(self, store: HashFS, tmp_path: Path) -> None:
        path = os.path.join(tmp_path, "caf\udce9")
        with open(path, "wb") as file:
            file.write(b"hello")
        assert store.put(path).id == HELLO

    @of_the_source
    @pytest.mark.parametrize("size", [0, 10_000, LARGE, 6_000_000])
    def test_an_object_that_breaks_leaves_nothing(self, store: HashFS, size: int) -> None:
        with pytest.raises(OSError, match="the line is dead"):
            store.put(Breaks(size))
        assert_empty(store)

    @of_the_source
    @pytest.mark.parametrize("size", [0, 10_000, LARGE])
    def test_an_iterable_that_breaks_leaves_nothing(self, store: HashFS, size: int) -> None:
        def pieces() -> Iterator[bytes]:
            yield content(size)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put(pieces())
        assert_empty(store)

    @of_the_source
    @pytest.mark.parametrize("mode", ["wb", "w", "ab"])
    def test_a_file_open_to_write_only_cannot_be_put(
        self, store: HashFS, mode: str, tmp_path: Path
    ) -> None:
        with open(tmp_path / "new", mode) as file, pytest.raises(io.UnsupportedOperation):
            store.put(file)
        assert_empty(store)

    @of_the_source
    @pytest.mark.parametrize("kind", ["BytesIO", "binary file", "unbuffered file", "gzip file"])
    def test_a_closed_file_cannot_be_put(self, store: HashFS, kind: str, tmp_path: Path) -> None:
        source = SOURCES[kind](b"hello", tmp_path)
        source.close()
        with pytest.raises(ValueError, match="closed"):
            store.put(source)
        assert_empty(store)

    @of_the_source
    def test_a_pipe_that_is_empty_for_now_is_not_at_its_end(self, store: HashFS) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.write(writer, b"part")
        with open(reader, "rb", buffering=0) as file, pytest.raises(BlockingIOError):
            store.put(file)
        os.close(writer)
        assert_empty(store)

    # -- limits and promises -------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
    def test_max_size_is_a_number_of_bytes_allowed(self, store: HashFS, size: int) -> None:
        assert store.put(content(size), max_size=size).id == id_of(content(size))
        for source in (content(size + 1), iter([content(size), b"x"]), Breaks(size + 1)):
            with pytest.raises(FileTooLargeError) as caught:
                store.put(source, max_size=size)
            assert caught.value.max_size == size
            assert isinstance(caught.value, (HashFSError, RequestEntityTooLarge))
        assert_holds(store, one=content(size))

    def test_an_endless_input_ends_at_the_limit(self, store: HashFS) -> None:
        with pytest.raises(FileTooLargeError):
            store.put(iter(lambda: b"x" * 1000, b""), max_size=10_000_000)
        assert_empty(store)

    @pytest.mark.parametrize(("own", "given"), [(10, None), (10, 99), (99, 10), (None, 10)])
    def test_the_smaller_limit_holds(
        self, new_store: NewStore, own: int | None, given: int | None
    ) -> None:
        store = new_store(max_size=own)
        assert store.put(b"x" * 10, max_size=given)
        with pytest.raises(FileTooLargeError):
            store.put(b"x" * 11, max_size=given)
        with pytest.raises(FileTooLargeError), store.writer(given) as writer:
            writer.write(b"x" * 11)
        assert_holds(store, one=b"x" * 10)

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_the_expected_content_is_stored(self, store: HashFS, size: int) -> None:
        data = content(size)
        assert not store.put(data, expected=id_of(data)).is_duplicate
        assert store.put(data, expected=id_of(data).upper()).is_duplicate

    @pytest.mark.parametrize("size", [5, LARGE])
    @pytest.mark.parametrize("expected", ["0" * 64, HELLO[:-1] + "0", "no id", "", HELLO + " "])
    def test_other_content_than_expected_is_refused(
        self, store: HashFS, size: int, expected: str
    ) -> None:
        with pytest.raises(DigestMismatchError) as caught:
            store.put(content(size), expected=expected)
        assert (caught.value.expected, caught.value.actual) == (expected, id_of(content(size)))
        assert isinstance(caught.value, BadRequest)
        assert_empty(store)

    def test_expected_is_a_str(self, store: HashFS) -> None:
        with pytest.raises(TypeError):
            store.put(b"hello", expected=bytes.fromhex(HELLO))  # type: ignore[arg-type]

    # -- many files at once --------------------------------------------------------------------

    def test_many_files_come_back_in_their_order(self, store: HashFS, tmp_path: Path) -> None:
        contents = [content(size) for size in (0, 5, LARGE, 5, 4096, 5)] + [
            b"%d" % number for number in range(300)
        ]
        files = [(io.BytesIO(data), ("txt", None)[n % 2]) for n, data in enumerate(contents)]
        results = list(store.put_files(iter(files)))
        assert [source for source, _ in results] == [source for source, _ in files]
        for (_, address), (_, extension), data in zip(results, files, contents, strict=True):
            assert isinstance(address, HashAddress)
            assert address.id == id_of(data)
            assert address.relpath.endswith(".txt") == (extension is not None)
            assert read(store, address.relpath) == data
        fives = [address for _, address in results if address.id == id_of(content(5))]  # type: ignore[union-attr]
        assert [address.is_duplicate for address in fives].count(False) == 1  # type: ignore[union-attr]
        assert store.count() == len(contents) - 2

    def test_of_many_files_only_the_bad_ones_fail(self, store: HashFS, tmp_path: Path) -> None:
        files = [
            *((b"one", None), (tmp_path / "missing", None), (b"two", "a/b"), (5, None)),
            *((Breaks(5000), None), (b"three", "txt")),
        ]
        results = [result for _, result in store.put_files(files)]
        errors = [None, ValueError, InvalidExtensionError, TypeError, OSError, None]
        for result, error in zip(results, errors, strict=True):
            assert isinstance(result, error or HashAddress)
        assert_holds(store, one=b"one", two=b"three")

    def test_of_no_files_nothing_comes(self, store: HashFS) -> None:
        assert list(store.put_files([])) == []
        assert_empty(store)

    def test_many_files_given_up_half_way_leave_whole_ones(self, store: HashFS) -> None:
        results = iter(store.put_files((b"%d" % number, None) for number in range(1000)))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert list(store.corrupted()) == []
        assert 0 < store.count() < 1000

    # -- extensions ----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "extension",
        [
            *("txt", ".txt", "tar.gz", ".tar.gz", "JPG", "x" * 64, "." + "x" * 64, "a.", "..a"),
            *("_", "-", "+", "c++", "7z", ".a..b", "-rf", "e-x_t+1.2"),
        ],
    )
    def test_an_extension_ends_the_name(self, store: HashFS, extension: str) -> None:
        address = store.put(b"hello", extension)
        dotted = extension if extension.startswith(".") else "." + extension
        assert address.relpath.endswith(HELLO[4:] + dotted)
        assert store.put(b"hello", extension).is_duplicate
        for name in (HELLO, address.relpath, address.abspath, address):
            assert store.get(name) == address
        assert read(store, HELLO) == b"hello"
        assert list(store.corrupted()) == []
        assert store.repair() == []

    @pytest.mark.parametrize("extension", [None, ""])
    def test_no_extension_adds_nothing(self, store: HashFS, extension: str | None) -> None:
        assert store.put(b"hello", extension).relpath.endswith(HELLO[4:])

    @pytest.mark.parametrize(
        "extension",
        [
            *(".", "..", "...", "." * 65, "x" * 65, "." + "x" * 65, "/../../x", "a/b", "a\\b"),
            *("a b", " ", "\n", "txt\n", "ä", "txt\0", "\ud800", "%2f", "*", "?", "[a]", "a:b"),
            *(b"txt", b"", 5, ["txt"]),
        ],
    )
    def test_any_other_extension_is_refused_before_anything_is_read(
        self, store: HashFS, extension: Any
    ) -> None:
        source = io.BytesIO(b"hello")
        source.read = None  # type: ignore[method-assign, assignment]
        with pytest.raises(InvalidExtensionError) as caught:
            store.put(source, extension)
        assert isinstance(caught.value, ValueError)
        assert_empty(store)

    # -- duplicates ----------------------------------------------------------------------------

    @pytest.mark.parametrize("size", SIZES)
    def test_equal_content_is_stored_once(self, store: HashFS, size: int) -> None:
        first, second = store.put(content(size)), store.put(io.BytesIO(content(size)))
        assert not first.is_duplicate
        assert second == first._replace(is_duplicate=True)
        assert_holds(store, one=content(size))

    @pytest.mark.parametrize("size", SIZES)
    def test_content_of_another_extension_is_a_duplicate_under_one_more_name(
        self, store: HashFS, size: int
    ) -> None:
        data = content(size)
        names = [store.put(data, extension) for extension in (None, "txt", "tar.gz")]
        assert [name.is_duplicate for name in names] == [False, True, True]
        assert {name.id for name in names} == {id_of(data)}
        assert_holds(store, one=data, two=data, three=data)
        for name in names:
            assert store.get(name.relpath) == name._replace(is_duplicate=False)

    def test_by_id_the_first_of_several_names_is_found(self, store: HashFS) -> None:
        for extension in ("txt", "b", "a.b", "a"):
            store.put(b"hello", extension)
            store.put(b"hellos", extension)
        found = store.get(HELLO)
        assert found is not None
        assert found.relpath.endswith(HELLO[4:] + ".a")

    # -- looking up ----------------------------------------------------------------------------

    @pytest.mark.parametrize("extension", [None, "txt", "tar.gz"])
    def test_a_file_is_found_by_everything_that_names_it(
        self, store: HashFS, extension: str | None
    ) -> None:
        address = store.put(b"hello", extension)
        for name in (
            *(address, address.id, address.relpath, address.abspath),
            *(Path8(address.relpath), Path8(address.id)),
        ):
            assert store.get(name) == address
            assert store.exists(name)
            assert name in store
            assert read(store, name) == b"hello"

    def test_what_is_not_stored_is_not_found(self, store: HashFS) -> None:
        other = store.put(b"hello", "txt")
        for name in (
            *(id_of(b"other"), "invalid", HELLO[:-1], HELLO + "0", HELLO.upper()),
            *(other.relpath + ".txt", other.relpath[:-4], other.relpath + "/", "a", HELLO[0]),
        ):
            assert store.get(name) is None
            assert not store.exists(name)
            assert name not in store
            with pytest.raises(NotStoredError):
                store.open(name)
            store.delete(name)
        assert_holds(store, one=b"hello")

    def test_an_address_whose_name_is_gone_is_found_under_another(self, store: HashFS) -> None:
        first, second = store.put(b"hello", "a"), store.put(b"hello", "b")
        store.delete(first)
        assert store.get(first) == second._replace(is_duplicate=False)

    def test_the_error_of_a_missing_file_names_it(self, store: HashFS) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            store.open("a/name")
        assert (caught.value.errno, caught.value.filename) == (2, "a/name")
        assert isinstance(caught.value, HashFSError)
        address = HashAddress(HELLO, "a/b/c", "/x/a/b/c")
        with pytest.raises(NotStoredError) as caught:
            store.open(address)
        assert caught.value.filename == "a/b/c"

    @pytest.mark.parametrize("name", [None, 5, b"hello", object(), ["a"], ("a", "b", "c", False)])
    def test_anything_else_is_a_type_error(self, store: HashFS, name: Any) -> None:
        for look in (store.get, store.exists, store.open, store.delete, store.__contains__):
            with pytest.raises(TypeError):
                look(name)

    @pytest.mark.parametrize(
        "name",
        [
            *("", ".", "..", "/", "../..", "/etc/hostname", "../../../../../../etc/hostname"),
            *("*", "**", "?", "[0-9a-f]", "\0", "x" * 5000, "a/" * 3000, "\ud800", "\n"),
            *(".hashfs", ".hashfs/tmp", ".hashfs/../.hashfs/tmp", ".HashFS/tmp", "C:\\", "~"),
        ],
    )
    def test_a_name_that_cannot_be_stored_is_not(self, store: HashFS, name: str) -> None:
        store.put(b"hello", "txt")
        assert store.get(name) is None
        assert name not in store
        store.delete(name)
        with pytest.raises(NotStoredError):
            store.open(name)
        assert_holds(store, one=b"hello")

    def test_glob_characters_stand_for_themselves(self, store: HashFS) -> None:
        address = store.put(b"hello", "txt")
        relpath = address.relpath
        for name in (
            *(relpath[:-4] + ".*", relpath[:-1] + "?", relpath[:-4] + "*"),
            *(relpath + "\0", relpath + "\0x", "\0" + relpath, HELLO + "\0", HELLO + "*"),
        ):
            assert store.get(name) is None
            store.delete(name)
        assert store.exists(address)

    # -- opening -------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 5, LARGE])
    def test_open_gives_a_binary_reader(self, store: HashFS, size: int) -> None:
        address = store.put(content(size))
        with store.open(address.id) as file:
            assert isinstance(file, io.BufferedReader)
            assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
            assert file.read() == content(size)
            file.seek(-(size // 2), os.SEEK_END)
            assert file.read() == content(size)[size - size // 2 :]
        assert file.closed

    @pytest.mark.parametrize("mode", ["r", "rt", "tr"])
    def test_open_reads_text_when_asked_to(self, store: HashFS, mode: str) -> None:
        store.put(b"one\ntwo")
        with store.open(id_of(b"one\ntwo"), mode) as file:
            assert file.readlines() == ["one\n", "two"]

    @pytest.mark.parametrize("mode", ["wb", "w", "ab", "r+b", "r+", "xb", "w+b", "rb+", "", "b"])
    def test_a_mode_that_writes_is_a_value_error(self, store: HashFS, mode: str) -> None:
        store.put(b"hello")
        with pytest.raises(ValueError):
            store.open(HELLO, mode)
        assert read(store, HELLO) == b"hello"

    # -- deleting ------------------------------------------------------------------------------

    def test_delete_by_id_takes_every_name(self, store: HashFS) -> None:
        for extension in (None, "txt", "tar.gz"):
            store.put(b"hello", extension)
        store.put(b"other")
        store.delete(HELLO)
        assert not store.exists(HELLO)
        assert_holds(store, one=b"other")

    @pytest.mark.parametrize("form", ["relpath", "abspath", "itself"])
    def test_delete_by_path_takes_one_name(self, store: HashFS, form: str) -> None:
        kept, gone = store.put(b"hello", "txt"), store.put(b"hello", "tar.gz")
        store.delete(getattr(gone, form, gone))
        assert list(store.files()) == [kept.abspath]
        assert not store.exists(gone.relpath)

    def test_to_delete_again_is_silent(self, store: HashFS) -> None:
        address = store.put(b"hello")
        for name in (*address[:3], address) * 2:
            store.delete(name)
        assert_empty(store)
        assert not store.put(b"hello").is_duplicate

    # -- listing -------------------------------------------------------------------------------

    def test_the_listings_agree(self, store: HashFS) -> None:
        addresses = [store.put(content(size)) for size in (1, 20, 300)]
        addresses.append(store.put(content(20), "txt"))
        paths = sorted(address.abspath for address in addresses)
        assert sorted(store.files()) == sorted(store) == paths
        assert store.count() == len(store) == 4
        assert store.size() == 1 + 20 + 300 + 20
        assert sorted(map(store.unshard, paths)) == sorted(each.id for each in addresses)
        assert sorted(map(store.relpath, paths)) == sorted(each.relpath for each in addresses)

    def test_an_empty_store_has_nothing(self, store: HashFS) -> None:
        assert_empty(store)
        assert list(store.corrupted()) == []
        assert store.repair() == []

    def test_unshard_refuses_what_is_not_inside(self, store: HashFS) -> None:
        with pytest.raises(ValueError):
            store.unshard("/etc/hostname")

    # -- serving -------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 5, LARGE])
    def test_content_to_serve_comes_measured(self, store: HashFS, size: int) -> None:
        address = store.put(content(size), "txt")
        for name in (address.id, address.relpath, address):
            found = store.backend.open_content(name)
            assert found is not None
            assert (found.address, found.size) == (address, size)
            assert found.file is not None
            with found.file as file:
                assert b"".join(iter(functools.partial(file.read, 65536), b"")) == content(size)

    def test_content_that_is_not_read_is_only_measured(self, store: HashFS) -> None:
        address = store.put(content(5))
        found = store.backend.open_content(address.id, read=False)
        assert found is not None
        found.close()
        assert (found.address, found.size) == (address, 5)

    def test_what_is_not_stored_is_not_served(self, store: HashFS) -> None:
        store.put(b"hello", "txt")
        for name in (id_of(b"other"), "..", "a/b", HELLO + ".asc"):
            assert store.backend.open_content(name) is None
            assert store.backend.open_cached(name) is None

    # -- keeping in order ----------------------------------------------------------------------

    def test_a_store_that_works_says_so(self, store: HashFS) -> None:
        store.backend.probe()
        store.put(b"hello")
        store.backend.probe()
        assert "error" not in {finding.level for finding in store.backend.diagnose()}

    def test_nothing_of_a_whole_store_is_damaged(self, store: HashFS) -> None:
        for size in (0, 5, LARGE):
            store.put(content(size), "txt")
        assert list(store.verify()) == list(store.verify(quarantine=True)) == []
        assert store.count() == 3

    def test_a_prune_leaves_what_is_in_use_and_what_is_young(self, store: HashFS) -> None:
        used, _ = store.put(b"one", "txt"), store.put(b"two")
        assert store.prune([used], dry_run=True) == store.prune([used]) == []
        assert_holds(store, one=b"one", two=b"two")

    def test_a_prune_deletes_the_rest_unless_it_refuses_the_age(self, store: HashFS) -> None:
        used = store.put(b"one", "txt")
        for extension in (None, "txt"):
            store.put(b"two", extension)
        now = timedelta(0)
        try:
            assert store.prune([used], older_than=now, dry_run=True) == [id_of(b"two")]
        except ValueError:
            with pytest.raises(ValueError):
                store.prune([used], older_than=now)
            assert_holds(store, one=b"one", two=b"two", three=b"two")
        else:
            assert_holds(store, one=b"one", two=b"two", three=b"two")
            assert store.prune([used], older_than=now) == [id_of(b"two")]
            assert_holds(store, one=b"one")

    # -- writers and uploads -------------------------------------------------------------------

    @pytest.mark.parametrize("size", SIZES)
    def test_a_writer_is_stored_by_commit(self, store: HashFS, size: int) -> None:
        data = content(size)
        with store.writer() as writer:
            for start in range(0, size, 100_001):
                writer.write(data[start : start + 100_001])
            assert writer.size == size
            assert writer.finish() == writer.finish() == writer.id == id_of(data)
            with writer.reader() as reader:
                assert reader.read() == data
            assert_empty(store)
            first, second = store.commit(writer, "a"), store.commit(writer, "b")
        assert (first.is_duplicate, second.is_duplicate) == (False, True)
        assert writer.closed
        assert_holds(store, one=data, two=data)

    @pytest.mark.parametrize("size", SIZES)
    def test_a_writer_that_is_closed_leaves_nothing(self, store: HashFS, size: int) -> None:
        writer = store.writer()
        writer.write(content(size))
        writer.finish()
        writer.close()
        writer.close()
        assert_empty(store)
        with pytest.raises(ValueError):
            store.commit(writer)
        with pytest.raises(ValueError):
            writer.write(b"more")

    def test_a_finished_writer_takes_no_more(self, store: HashFS) -> None:
        with store.writer() as writer:
            with pytest.raises(ValueError):
                writer.id  # noqa: B018
            writer.finish()
            with pytest.raises(ValueError):
                writer.write(b"more")

    @pytest.mark.parametrize("size", SIZES)
    def test_an_upload_can_be_read_sought_and_put(self, store: HashFS, size: int) -> None:
        data = content(size)
        with _upload(data, store) as stream:
            assert (stream.readable(), stream.seekable(), stream.writable()) == (True, True, False)
            assert stream.read(3) == data[:3]
            address = store.put(stream, "txt", expected=id_of(data))
            assert stream.tell() == min(3, size)
            assert stream.read() == data[3:]
            assert stream.seek(0, os.SEEK_END) == size
            assert stream.seek(size // 2) == size // 2
            assert stream.read() == data[size // 2 :]
            assert read(store, address) == data
            with pytest.raises(io.UnsupportedOperation):
                stream.write(b"x")
            with pytest.raises(io.UnsupportedOperation):
                stream.truncate()
            with pytest.raises(ValueError):
                stream.seek(-1)
        assert_holds(store, one=data)

    @pytest.mark.parametrize("size", SIZES)
    def test_an_upload_that_is_not_put_leaves_nothing(self, store: HashFS, size: int) -> None:
        stream = FileStorage(_upload(content(size), store))
        assert stream.read() == content(size)
        stream.close()
        assert_empty(store)
        with pytest.raises(ValueError, match="closed"):
            store.put(stream)
        with pytest.raises(ValueError, match="closed"):
            stream.read()

    def test_a_closed_upload_cannot_be_put_though_its_content_is_there(self, store: HashFS) -> None:
        store.put(b"hello")
        stream = _upload(b"hello", store)
        stream.close()
        with pytest.raises(ValueError):
            store.put(stream)

    @pytest.mark.parametrize("size", SIZES)
    def test_an_upload_can_be_put_again_and_again(self, store: HashFS, size: int) -> None:
        data = content(size)
        with _upload(data, store) as stream:
            file = FileStorage(stream, "name")
            assert not store.put(file).is_duplicate
            assert store.put(file).is_duplicate
            assert store.put(file, "txt").is_duplicate
            store.delete(id_of(data))
            assert not store.put(file, "asc").is_duplicate
            store.delete(id_of(data))
            assert not store.put(file).is_duplicate
            assert file.read() == data
        assert_holds(store, one=data)

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("options", [{}, {"algorithm": "md5"}, {"depth": 1}], ids=str)
    def test_an_upload_can_be_put_into_another_store(
        self, store: HashFS, new_store: NewStore, size: int, options: dict[str, Any]
    ) -> None:
        data, other = content(size), new_store(**options)
        with _upload(data, store) as stream:
            assert not other.put(stream).is_duplicate
            assert not store.put(stream).is_duplicate
            other.delete(hashlib.new(other.algorithm, data).hexdigest())
            assert not other.put(stream, "txt").is_duplicate
        assert_holds(store, one=data)
        assert_holds(other, one=data)
        assert list(other.corrupted()) == []

    def test_an_upload_keeps_to_the_limits_of_each_put(
        self, store: HashFS, new_store: NewStore
    ) -> None:
        with _upload(b"hello", store) as stream:
            refusals: list[tuple[HashFS, dict[str, Any]]] = [
                (store, {"max_size": 4}),
                (new_store(max_size=4), {}),
                (store, {"expected": "0" * 64}),
                (store, {"extension": "a/b"}),
            ]
            for into, wishes in refusals:
                with pytest.raises(HashFSError):
                    into.put(stream, **wishes)
            assert_empty(store)
            assert store.put(stream, max_size=5, expected=HELLO)

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_an_upload_whose_descriptor_is_passed_on_cannot_be_changed(
        self, store: HashFS, size: int
    ) -> None:
        with _upload(content(size), store) as stream:
            store.put(stream)
            try:
                fd = stream.fileno()
            except io.UnsupportedOperation:
                return
            assert os.fstat(fd).st_size == size
            with pytest.raises(OSError):
                os.write(fd, b"x")

    # -- at the same time ----------------------------------------------------------------------

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_of_many_writers_of_equal_content_one_is_first(
        self, store: HashFS, size: int, may_overwrite: bool
    ) -> None:
        start = threading.Barrier(8)

        def put(n: int) -> list[bool]:
            found = []
            for round in range(5):
                data = content(size) + bytes([round])
                start.wait(60)
                found.append(store.put(data).is_duplicate)
            return found

        with ThreadPoolExecutor(8) as threads:
            rounds = list(zip(*threads.map(put, range(8)), strict=True))
        firsts = [found.count(False) for found in rounds]
        assert firsts == [1] * 5 or (may_overwrite and 0 not in firsts)
        assert store.count() == 5
