"""Export of runs to folders and archives, and import from either."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hashbench.errors import HashbenchError, UsageError, quoted, reason, unknown_name
from hashbench.results.folders import new_run_folder, temporary_folder
from hashbench.results.query import RunFilter, find
from hashbench.results.record import FILES, RECORD
from hashbench.results.stored_run import StoredRun
from hashbench.results.verify import OPTIONAL, Checked, check_files, relative_folder
from hashbench.runtime.array_files import unpacked_limit
from hashbench.runtime.files import atomic_write
from hashbench.runtime.progress import progress

if TYPE_CHECKING:
    from typing_extensions import Self

Verify = Callable[[Iterable[StoredRun]], Iterator[Checked]]

ARCHIVE = ".tar.gz"

_OTHER_ARCHIVES = (".zip", ".tgz", ".tar", ".gz", ".xz", ".bz2")
_CHUNK = 2**20
_LONG_HEADERS = (  # for values that do not fit the next header, such as a long name
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_HEADER = 1 << 16  # bytes
_NAME = r"[^./\\:][^/\\:]*"  # of a folder: neither hidden nor a path to another folder
_MEMBER = re.compile(
    rf"(?=[^/]+@){_NAME}/{_NAME}/[0-9]+bit/{_NAME}/({'|'.join(map(re.escape, (RECORD, *FILES)))})"
)


class Transferred(NamedTuple):
    """The runs that were copied, and the numbers of those that already existed or are not verified."""

    new: list[StoredRun]
    existing: int
    unverified: int = 0


def export_runs(runs: Sequence[StoredRun], destination: Path, without: Collection[str] = ()) -> Transferred:
    """Copy runs to a folder, or pack them into a new archive.

    Archives of the same runs have the same bytes.

    Args:
        runs: The runs, from `find`.
        destination: A results folder, or a file `NAME.tar.gz`.
        without: Parts to leave out: "codes", "log" or "weights".

    Raises:
        UsageError: A part is unknown, or the archive already exists or has another format.
        HashbenchError: A run has a problem, another run with its id exists, or a file cannot be written.
    """
    for name in without:
        if name not in OPTIONAL:
            raise unknown_name("part of a run", name, OPTIONAL)
    left_out = {OPTIONAL[name] for name in without}
    problems = [f"{check.run.record.run_id}: {p}" for check in map(check_files, runs) for p in check.problems]
    if problems:
        raise HashbenchError(f"nothing is exported: {problems[0]}; `hashbench results verify` shows all")
    if not destination.name.endswith(ARCHIVE):
        if destination.suffix in _OTHER_ARCHIVES:
            raise UsageError(f"{destination}: expected a folder, or an archive whose name ends in {ARCHIVE}")
        return _move(runs, destination, shutil.copyfile, left_out)
    if destination.exists():
        raise UsageError(f"{destination} already exists; choose another name")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(destination) as part:
            _pack(runs, part, left_out)
    except OSError as error:
        raise HashbenchError(
            f"{destination} cannot be written ({error}); free some space, or choose another path"
        ) from error
    return Transferred(list(runs), 0)


def import_runs(source: Path, results: Path, verify: Verify) -> Transferred:
    """Import the runs of a folder or an archive, after verifying all of them.

    Args:
        source: A results folder, or an archive from `export_runs`.
        results: The results folder.
        verify: `hashbench.experiment.verify.verify_all`.

    Raises:
        UsageError: The source does not exist.
        HashbenchError: The source is damaged or contains other files than those of runs, a run has a problem,
            or another run with its id exists.
    """
    if not source.exists():
        raise UsageError(f"{source} does not exist")
    try:
        results.mkdir(parents=True, exist_ok=True)
        with temporary_folder(results, ".import.") as folder:
            if source.is_dir():
                runs, _, notes = find(source, RunFilter())
                _refuse(source, notes)
                _move(runs, folder, shutil.copyfile)
            else:
                _unpack(source, folder)
            runs, unverified = _sound_runs(folder, source, verify)
            return _move(runs, results, Path.rename)._replace(unverified=unverified)
    except OSError as error:
        raise HashbenchError(f"{results} cannot be written ({error}); choose --results DIR") from error


def _sound_runs(folder: Path, source: Path, verify: Verify) -> tuple[list[StoredRun], int]:
    """Verify the runs of a folder, and return them with the number of those that are not verified."""
    runs, _, notes = find(folder, RunFilter())
    _refuse(source, [note.replace(f"{folder}/", "") for note in notes])
    if not runs:
        raise HashbenchError(
            f"{source} contains no runs; `hashbench results export` writes archives that can be imported"
        )
    problems, unverified = [], 0
    with progress("check", len(runs)) as advance:
        for checked in verify(runs):
            found = (problem.replace(f"{folder}/", "") for problem in checked.problems)
            problems += [f"{checked.run.record.run_id}: {problem}" for problem in found]
            unverified += checked.status == "not verified"
            advance(1)
    _refuse(source, problems)
    return runs, unverified


def _refuse(source: Path, problems: Sequence[str]) -> None:
    if problems:
        more = f" ({len(problems):,} problems in all)" if len(problems) > 1 else ""
        raise HashbenchError(f"{source}: nothing is imported: {problems[0]}{more}")


def _move(
    runs: Sequence[StoredRun],
    destination: Path,
    put: Callable[[Path, Path], object],
    left_out: Collection[str] = (),
) -> Transferred:
    """Copy or move runs to a folder, each as a whole, by the function `put(file, new file)`."""
    new, existing, missing = [], 0, []
    for run in runs:
        final = destination / relative_folder(run)
        if not final.exists():
            new.append(run)
        elif _same(final / RECORD, run.folder / RECORD):
            existing += 1
            # such as codes that were left out before
            missing += [(path, final) for path in _paths(run, left_out) if not (final / path.name).exists()]
        else:
            raise HashbenchError(
                f"{final} is another run with the same id; move it away, or choose another folder"
            )
    with progress("copy", len(new)) as advance:
        for run in new:
            with new_run_folder(destination / relative_folder(run)) as partial:
                try:
                    for path in _paths(run, left_out):
                        put(path, partial / path.name)
                except BaseException:
                    shutil.rmtree(partial)  # it would look like an unfinished run
                    raise
            advance(1)
    for path, final in missing:
        try:
            with atomic_write(final / path.name) as partial:
                put(path, partial)
        except OSError as error:
            raise HashbenchError(
                f"{final} cannot be written ({error}); free some space, and try again"
            ) from error
    return Transferred(new, existing)


def _paths(run: StoredRun, left_out: Collection[str]) -> list[Path]:
    """Return the files of a run, in a fixed order."""
    paths = [run.folder / name for name in (RECORD, *FILES) if name not in left_out]
    return [path for path in paths if path.is_file()]


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and path.read_bytes() == other.read_bytes()


def _pack(runs: Sequence[StoredRun], archive: Path, left_out: Collection[str]) -> None:
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        progress("pack", len(runs)) as advance,
    ):
        for run in sorted(runs, key=relative_folder):
            for path in _paths(run, left_out):
                member = tarfile.TarInfo((relative_folder(run) / path.name).as_posix())
                member.size = path.stat().st_size
                member.mtime = int(run.record.created.timestamp())
                with path.open("rb") as content:
                    tar.addfile(member, content)
            advance(1)


class _Member(tarfile.TarInfo):
    """A header of an archive; refused if tarfile would ignore damage, or use unlimited memory or disk."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block; a damaged header must not look like the end of the archive."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise ValueError(str(error)) from None
        if member.size < 0 or (member.type in _LONG_HEADERS and member.size > _LONGEST_HEADER):
            raise ValueError(f"it has a header of {member.size:,} bytes")
        return member

    def _refuse_sparse(self, *_: object) -> NoReturn:
        raise ValueError("a member is sparse: its size is not limited by that of the archive")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Bounded(io.RawIOBase):
    """A stream that raises an error if it is longer than a limit."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        super().__init__()
        self._stream, self._limit, self._left = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"it contains more than {self._limit:,} bytes")
        return content


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of runs without their attributes; refuse an archive with any other files."""
    try:
        with gzip.open(archive) as packed:
            stream = _Bounded(packed, unpacked_limit(archive))
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member in tar:
                    _unpack_member(tar, member, folder, archive)
            while stream.read(_CHUNK):  # the checksum of gzip follows what tarfile reads
                pass
    except RecursionError:
        raise HashbenchError(f"{archive} cannot be unpacked: it has too many headers for one file") from None
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise HashbenchError(
            f"{archive} cannot be unpacked ({reason(error)}); if it is damaged, download it again"
        ) from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    if member.isdir():
        return
    if not (member.isreg() and _MEMBER.fullmatch(member.name)):
        raise HashbenchError(
            f"{archive} contains {quoted(member.name)}, which is not a file of a run; nothing is imported"
        )
    if member.size > shutil.disk_usage(folder).free:
        raise HashbenchError(f"{member.name} of {archive} has {member.size:,} bytes; free some space")
    path = folder / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
