"""Which file system a folder lies on, and which of them are no place for a database."""

from __future__ import annotations

from pathlib import Path


class FileSystem(str):
    """The type of a file system, such as `ext4`; whether it is the one that everything here lies on."""

    is_root: bool = False


def file_system(folder: Path) -> FileSystem:
    """That of a folder; empty where it cannot be told."""
    import psutil

    try:
        mounts = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError):
        return FileSystem()
    best, point = FileSystem(), ""
    for mount in mounts:
        if folder.is_relative_to(mount.mountpoint) and len(mount.mountpoint) >= len(point):
            best, point = FileSystem(mount.fstype), mount.mountpoint
    best.is_root = point == folder.anchor
    return best


NETWORK = "a network drive"
_NETWORK = frozenset({
    "acfs", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "macfuse",
    "ncpfs", "nfs", "nfs3", "nfs4", "orangefs", "osxfuse", "pvfs2", "smb", "smb2", "smb3", "smbfs", "webdav",
})  # fmt: skip
_FUSE_NETWORK = frozenset({
    "afpfs", "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "curlftpfs", "cvmfs2", "davfs2", "dbxfs", "gcsfuse",
    "geesefs", "glusterfs", "goofys", "google-drive-ocamlfuse", "gvfsd-fuse", "hdfs", "ifuse", "jmtpfs", "juicefs",
    "kio-fuse",
    "lustre", "mfs", "moosefs", "mount-s3", "mountpoint-s3", "onedriver", "rclone", "s3backer", "s3fs", "seaweedfs",
    "smbnetfs", "sshfs", "xrootdfs",
})  # fmt: skip
_SHARED = frozenset({"9p", "drvfs", "fakeowner", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"})
"""Folders of another system: of Windows in WSL, of the host in a virtual machine or a container."""
_FUSE_SHARED = frozenset({"grpcfuse", "osxfs", "prl_fsd", "virtiofs", "vmhgfs-fuse"})
_OFTEN_ROOT = frozenset({"9p", "virtiofs"})


def trouble(kind: str) -> str:
    """What kind of place it is where SQLite may lose data or stay locked, in words; "" for a good one."""
    name = kind.lower()
    base, _, helper = name.partition(".")
    if name in _SHARED or (base == "fuse" and helper in _FUSE_SHARED):
        return "a folder shared with another system"
    if name in _NETWORK or (base == "fuse" and helper in _FUSE_NETWORK):
        return NETWORK
    return ""


def is_all_there_is(kind: str) -> bool:
    """The whole system lies on it, as in a container or a sandbox: there is no better place to name."""
    return getattr(kind, "is_root", False) and kind.lower() in _OFTEN_ROOT
