"""Tars and zips as an enemy makes them, and as a bad line leaves them."""

import gzip
import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.attacks.file_damage import Damage, make_folder, make_pipe, write


def truncate(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-num_bytes])


def change_trailer(place: int, path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[place - 8] ^= 0x55
    path.write_bytes(content)


def uncompressed(is_cut: bool, path: Path, rng: random.Random) -> None:
    content = gzip.decompress(path.read_bytes())
    # At the beginning of a member's header, where a careless reader sees an end.
    last = content.rindex(b"ustar") - 257
    path.write_bytes(content[:last] if is_cut else content)


def _member(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


AddMembers = Callable[[tarfile.TarFile, Path], None]


def with_member(add: AddMembers) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        path = folder / "asante-twi.tgz"
        content = io.BytesIO(gzip.decompress(path.read_bytes()))
        with tarfile.open(fileobj=content, mode="a") as tar:
            add(tar, folder)
        path.write_bytes(gzip.compress(content.getvalue()))

    return damage


def _add(member: tarfile.TarInfo, content: bytes = b"") -> AddMembers:
    def add(tar: tarfile.TarFile, folder: Path) -> None:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))

    return add


def _add_claiming(size: int) -> AddMembers:
    return lambda tar, folder: tar.addfile(_member("asante-twi/x.txt", size=size))


def _add_escape(tar: tarfile.TarFile, folder: Path) -> None:
    """CVE-2025-4517: links so deep that realpath gives up lead a "data" filter out."""
    deep, path = "d" * 247, ""
    for name in "abcdefghijklmnop":
        tar.addfile(_member(path + deep, type=tarfile.DIRTYPE, mode=0o755))
        tar.addfile(_member(path + name, type=tarfile.SYMTYPE, linkname=deep))
        path += deep + "/"
    way = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    tar.addfile(_member(way, type=tarfile.SYMTYPE, linkname="../" * 16))
    tar.addfile(_member("out", type=tarfile.SYMTYPE, linkname=way + "/../../../../.."))
    _add(_member("out/escaped.txt"), b"out")(tar, folder)


def _add_through_link(tar: tarfile.TarFile, folder: Path) -> None:
    tar.addfile(_member("asante-twi/up", type=tarfile.SYMTYPE, linkname=str(folder.parent)))
    _add(_member("asante-twi/up/escaped.txt"), b"out")(tar, folder)


def _add_absolute(tar: tarfile.TarFile, folder: Path) -> None:
    _add(_member(str(folder.parent / "escaped.txt")), b"out")(tar, folder)


def _add_pax(headers: dict[str, str]) -> AddMembers:
    def add(tar: tarfile.TarFile, folder: Path) -> None:
        tar.format = tarfile.PAX_FORMAT
        _add(_member("asante-twi/x.txt", pax_headers=headers), b"x")(tar, folder)

    return add


def _add_headers_of_headers(tar: tarfile.TarFile, folder: Path) -> None:
    for _ in range(3000):
        tar.addfile(_member("x", type=tarfile.XHDTYPE, size=0))


def _add_huge_header(tar: tarfile.TarFile, folder: Path) -> None:
    tar.addfile(_member("x", type=tarfile.XHDTYPE, size=2**33))


def _add_many(tar: tarfile.TarFile, folder: Path) -> None:
    for number in range(1_000):
        tar.addfile(_member(f"asante-twi/x/{number}"))


MEMBERS: tuple[tuple[str, AddMembers], ...] = (
    ("links that escape", _add_escape),
    ("a link and a file through it", _add_through_link),
    ("an absolute path", _add_absolute),
    ("dots", _add(_member("asante-twi/../../../../../../escaped.txt"), b"out")),
    ("a hard link", _add(_member("x", type=tarfile.LNKTYPE, linkname="/etc/passwd"))),
    ("a symbolic link", _add(_member("x", type=tarfile.SYMTYPE, linkname="asante-twi"))),
    ("a pipe", _add(_member("asante-twi/x.flac", type=tarfile.FIFOTYPE))),
    ("a device", _add(_member("x", type=tarfile.CHRTYPE, devmajor=1, devminor=5))),
    ("a long name", _add(_member("asante-twi/" + "x" * 300), b"x")),
    ("a longer path", _add(_member("x/" * 4000 + "x"), b"x")),
    ("a name that is not UTF-8", _add(_member("asante-twi/x\udcff.txt"), b"x")),
    ("a line end", _add(_member("asante-twi/a\nb.txt"), b"x")),
    ("an empty name", _add(_member(""), b"x")),
    ("its own note", _add(_member("../asante-twi.unpacked.json"), b'{"is_whole": true}')),
    ("a member twice", _add(_member("asante-twi/train/GEN/GEN_001_001.txt"), b"Other")),
    ("a file below a file", _add(_member("asante-twi/train/GEN/GEN_001_001.txt/x"), b"x")),
    ("a member of 2^40 bytes", _add_claiming(2**40)),
    ("a member of 2^29 bytes", _add_claiming(2**29)),
    ("a size that is no number", _add_pax({"size": "many"})),
    ("a negative size", _add_pax({"size": "-1000"})),
    ("a path of NULs", _add_pax({"path": "a\0b"})),
    ("a sparse map without end", _add_pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})),
    ("an odd sparse map", _add_pax({"GNU.sparse.map": "0,1,x"})),
    ("an odd time", _add_pax({"mtime": "nan"})),
    ("headers of headers", _add_headers_of_headers),
    ("a header of 8 GiB", _add_huge_header),
    ("many members", _add_many),
)


def tar_bomb(path: Path, rng: random.Random) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for number in range(12):
            member = _member(f"asante-twi/{number}.flac", size=2**23)
            tar.addfile(member, io.BytesIO(bytes(2**23)))


Entry = tuple[str, bytes, dict[str, object]]


def with_entry(name: str, content: bytes, fields: dict[str, object]) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        info = zipfile.ZipInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        with zipfile.ZipFile(folder / "fisd.zip", "a") as archive:
            archive.writestr(info, content)

    return damage


FISD_NAME = "AsantiTwiFm23-a-Tmp000-rnd000.ogg"
TABLE = "Audio Filepath\tTranscription\tTranslation\n"
ENTRIES: tuple[tuple[str, Entry], ...] = (
    ("dots", ("../../escaped.ogg", b"x", {})),
    ("an absolute name", ("/tmp/escaped.ogg", b"x", {})),
    ("another data.csv", ("x/data.csv", TABLE.encode(), {})),
    ("a data.csv of other columns", ("x/data.csv", b"a\tb\n1\t2\n", {})),
    ("a data.csv in Latin-1", ("x/data.csv", (TABLE + "x\té\ty\n").encode("latin-1"), {})),
    ("a zip", ("inner.zip", b"PK\x05\x06" + bytes(18), {})),
    ("a bomb", ("x/bomb.ogg", bytes(2**26), {"compress_type": zipfile.ZIP_DEFLATED})),
    ("a bomb of a table", ("x/data.csv", bytes(2**25), {"compress_type": zipfile.ZIP_BZIP2})),
    ("a name twice", ("fisd-asante-90p/data.csv", TABLE.encode(), {})),
    ("a recording twice", (f"other/{FISD_NAME}", b"OggS", {})),
    ("a long name", ("x" * 60_000 + ".ogg", b"x", {})),
    ("an odd name", ("a\nb\x1b[2J.ogg", b"x", {})),
    ("an empty data.csv", ("x/data.csv", b"", {})),
    ("LZMA", ("x/y.ogg", b"x" * 1000, {"compress_type": zipfile.ZIP_LZMA})),
)


def _set_in_directory(offset: int, value: bytes) -> Callable[[Path, random.Random], None]:
    """A field of every entry of the zip's directory."""

    def change(path: Path, rng: random.Random) -> None:
        content = bytearray(path.read_bytes())
        place = content.find(b"PK\x01\x02")
        while place >= 0:
            content[place + offset : place + offset + len(value)] = value
            place = content.find(b"PK\x01\x02", place + 4)
        path.write_bytes(content)

    return change


ZIPS: tuple[tuple[str, Callable[[Path, random.Random], None]], ...] = (
    ("no zip", write(b"This is no zip.")),
    ("empty", write(b"")),
    ("an empty zip", write(b"PK\x05\x06" + bytes(18))),
    ("encrypted", _set_in_directory(8, b"\x01\x00")),
    ("of an unknown kind", _set_in_directory(10, b"\x63\x00")),
    ("of a later version", _set_in_directory(6, b"\xff\x00")),
    ("names said to be UTF-8", _set_in_directory(8, b"\x00\x08")),
    ("of sizes of 4 GiB", _set_in_directory(24, struct.pack("<I", 2**32 - 2))),
    ("of sizes of 0", _set_in_directory(24, bytes(4))),
    ("of wrong checksums", _set_in_directory(16, bytes(4))),
    ("of wrong places", _set_in_directory(42, struct.pack("<I", 2**31))),
    ("of one place", _set_in_directory(42, bytes(4))),
    ("of endless comments", _set_in_directory(32, b"\xff\xff")),
    ("a folder", make_folder),
    ("a pipe", make_pipe),
)
