"""Runs on their way to another place: copied into a folder, packed into an archive, taken in from either."""

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
from hashbench.results.verify import OPTIONAL, Checked, check_files, place
from hashbench.runtime.array_files import unpacked_limit
from hashbench.runtime.files import atomic_write
from hashbench.runtime.progress import progress

if TYPE_CHECKING:
    from typing_extensions import Self

Verify = Callable[[Iterable[StoredRun]], Iterator[Checked]]

ARCHIVE = ".tar.gz"

_OTHER_ARCHIVES = (".zip", ".tgz", ".tar", ".gz", ".xz", ".bz2")
_CHUNK = 2**20
_LONG_HEADERS = (  # hold what does not fit the header behind them, such as a long name
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_HEADER = 1 << 16  # bytes
_NAME = r"[^./\\:][^/\\:]*"  # of a folder: not hidden, and leads nowhere else
_MEMBER = re.compile(
    rf"(?=[^/]+@){_NAME}/{_NAME}/[0-9]+bit/{_NAME}/({'|'.join(map(re.escape, (RECORD, *FILES)))})"
)


class Transferred(NamedTuple):
    """The runs that came to a place, how many were there already, and how many could not be verified."""

    new: list[StoredRun]
    there: int
    unverified: int = 0


def export_runs(runs: Sequence[StoredRun], destination: Path, without: Collection[str] = ()) -> Transferred:
    """Copy runs to a folder, or pack them into a new archive; the same runs give the same bytes.

    Args:
        runs: The runs, from `find`.
        destination: A folder, as one of all records; or a file `NAME.tar.gz`.
        without: Of "codes", "log" and "weights", what to leave out.

    Raises:
        UsageError: There is no such part, or the archive is there already or of another kind.
        HashbenchError: A run is not sound, another one of its id is there, or something cannot be written.
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
            raise UsageError(f"{destination}: name a folder, or an archive that ends in {ARCHIVE}")
        return _move(runs, destination, shutil.copyfile, left_out)
    if destination.exists():
        raise UsageError(f"{destination} is there already; choose another name")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(destination) as part:
            _pack(runs, part, left_out)
    except OSError as error:
        raise HashbenchError(
            f"{destination} cannot be written ({error}); make room, or choose another place"
        ) from error
    return Transferred(list(runs), 0)


def import_runs(source: Path, results: Path, verify: Verify) -> Transferred:
    """Take in all runs of a folder or an archive, once every one of them is found to be sound.

    Args:
        source: A folder of records; or an archive from `export_runs`.
        results: Folder of all records.
        verify: `hashbench.experiment.verify.verify_all`.

    Raises:
        HashbenchError: The source is damaged or holds anything else than runs; or a run is not sound, or
            another one of its id is there.
    """
    if not source.exists():
        raise UsageError(f"{source} is not there")
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
    """All runs of a folder, which came from `source`; refuses all of them if one is not sound.

    Returns:
        The runs, and how many of them could not be verified.
    """
    runs, _, notes = find(folder, RunFilter())
    _refuse(source, [note.replace(f"{folder}/", "") for note in notes])
    if not runs:
        raise HashbenchError(f"{source} holds no runs; `hashbench results export` makes what can be imported")
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
    """Bring runs to a folder by `put(file, new file)`, each as a whole or not at all."""
    new, there, lacking = [], 0, []
    for run in runs:
        final = destination / place(run)
        if not final.exists():
            new.append(run)
        elif _same(final / RECORD, run.folder / RECORD):
            there += 1
            # as codes that were left out before
            lacking += [(path, final) for path in _paths(run, left_out) if not (final / path.name).exists()]
        else:
            raise HashbenchError(
                f"{final} is another run of the same id; move it away, or choose another folder"
            )
    with progress("copy", len(new)) as advance:
        for run in new:
            with new_run_folder(destination / place(run)) as partial:
                try:
                    for path in _paths(run, left_out):
                        put(path, partial / path.name)
                except BaseException:
                    shutil.rmtree(partial)  # it would pass for a run that has not ended
                    raise
            advance(1)
    for path, final in lacking:
        try:
            with atomic_write(final / path.name) as partial:
                put(path, partial)
        except OSError as error:
            raise HashbenchError(f"{final} cannot be written ({error}); make room, and try again") from error
    return Transferred(new, there)


def _paths(run: StoredRun, left_out: Collection[str]) -> list[Path]:
    """The files of a run, in a fixed order."""
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
        for run in sorted(runs, key=place):
            for path in _paths(run, left_out):
                member = tarfile.TarInfo((place(run) / path.name).as_posix())
                member.size = path.stat().st_size
                member.mtime = int(run.record.created.timestamp())
                with path.open("rb") as content:
                    tar.addfile(member, content)
            advance(1)


class _Member(tarfile.TarInfo):
    """A header of an archive, refused where tarfile would go on, or take memory or disk without bound."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block; damage must not pass for the archive's end."""
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
        raise ValueError("a member is sparse: a few bytes stand for a file of any size")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Bounded(io.RawIOBase):
    """A stream that ends in an error where it is longer than a limit."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        super().__init__()
        self._stream, self._limit, self._left = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        """Read at most so many bytes."""
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"it holds more than {self._limit:,} bytes")
        return content


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack files of runs, by their content alone, and refuse an archive that holds anything else."""
    try:
        with gzip.open(archive) as packed:
            stream = _Bounded(packed, unpacked_limit(archive))
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member in tar:
                    _unpack_member(tar, member, folder, archive)
            while stream.read(_CHUNK):  # gzip has its checksum behind all that tarfile reads
                pass
    except RecursionError:
        raise HashbenchError(f"{archive} cannot be unpacked: it has too many headers for one file") from None
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise HashbenchError(
            f"{archive} cannot be unpacked ({reason(error)}); if it is damaged, get it again"
        ) from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    if member.isdir():
        return
    if not (member.isreg() and _MEMBER.fullmatch(member.name)):
        raise HashbenchError(
            f"{archive} holds {quoted(member.name)}, which is no file of a run; nothing is imported"
        )
    if member.size > shutil.disk_usage(folder).free:
        raise HashbenchError(f"{member.name} of {archive} has {member.size:,} bytes; make room")
    path = folder / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
