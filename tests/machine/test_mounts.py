"""On which file systems a new database is refused, an existing one warned of, and which are good."""

# ruff: noqa: F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from sweeping import Program, program  # noqa: F401

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.machine import mounts
from ollama_sweep.store import file as files

SHARED = ("9p", "drvfs", "virtiofs", "fuse.grpcfuse", "vboxsf", "fakeowner", "fuse.vmhgfs-fuse", "9P")
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.rclone", "ceph", "macfuse", "beegfs", "fuse.gcsfuse")
GOOD = ("ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "apfs", "fuseblk", "fuse.mergerfs", "fuse", "ntfs3", "")
Mounts = list[tuple[str, str]]


def mounted(monkeypatch: pytest.MonkeyPatch, *mounts_: tuple[str, str]) -> None:
    """The system has these mounts: where, and which file system."""
    found = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts_]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **asked: found)


def test_the_mount_of_a_folder_is_the_nearest_above_it_and_the_last_at_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch, ("/", "ext4"), ("/mnt/c", "ext4"), ("/mnt/c", "9p"), ("/mnt/c/x", "xfs"), ("/mnt/cc", "nfs"))
    names = ("/home", "/mnt/c/u", "/mnt/c/x/y", "/mnt/cc", "/mnt/ccc")
    found = [mounts.file_system(Path(name)) for name in names]
    assert found == ["ext4", "9p", "xfs", "nfs", "ext4"]
    assert [kind.is_root for kind in found] == [True, False, False, False, True]


def test_every_kind_of_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    old.write_bytes(b"a database")
    (tmp_path / "empty.db").touch()
    for kind in (*SHARED, *NETWORK, *GOOD):
        mounted(monkeypatch, ("/", "ext4"), (str(tmp_path), kind))
        is_bad = kind not in GOOD
        warning = files.check_place(old, False, mounts.file_system)
        assert (f"({kind.lower()}); SQLite can lose data there" in warning) is is_bad, kind
        assert (
            files.check_place(old, True, mounts.file_system) == files.check_place(new, True, mounts.file_system) == ""
        )
        for name in (new, tmp_path / "empty.db"):
            if is_bad:
                with pytest.raises(ConfigError, match=r"--allow-network-db$") as caught:
                    files.check_place(name, False, mounts.file_system)
                assert "\n" not in str(caught.value)
                assert ("a folder shared with another system" in str(caught.value)) is (kind in SHARED)
            else:
                assert files.check_place(name, False, mounts.file_system) == ""


@pytest.mark.parametrize(("kind", "is_refused"), [("9p", False), ("virtiofs", False), ("nfs4", True), ("ext4", False)])
def test_where_the_whole_system_lies_on_it_there_is_no_better_place(
    kind: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted(monkeypatch, ("/", kind), ("/proc", "proc"))
    if is_refused:
        with pytest.raises(ConfigError):
            files.check_place(tmp_path / "new.db", False, mounts.file_system)
    else:
        assert bool(files.check_place(tmp_path / "new.db", False, mounts.file_system)) is (kind != "ext4")


def test_the_commands_that_make_one(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program.folder / "old.json"
    old.write_text('{"results": [{"num_ctx": 512, "num_batch": 2, "prompt_eval_rate": 5.0}]}')
    words = (["run", str(program.grid())], ["run", str(program.grid()), "--detach"], ["import", "old.json"])
    before = program.files()
    mounted(monkeypatch, ("/", "ext4"), (str(program.folder), "drvfs"))
    for command in words:
        assert "is on a folder shared with another system (drvfs)" in program(*command).must(2).stderr
    assert program.files() == before
    program(*words[0], "--allow-network-db").must()
    ended = program(*words[0]).must()
    assert (ended.stdout + ended.stderr).count("(drvfs); SQLite can lose data there") == 1
    assert "--allow-network-db" in program("recover", "--to", "new.db").must(2).stderr
    program("recover", "--to", "new.db", "--allow-network-db").must()
    assert program("status").must().stderr == ""
