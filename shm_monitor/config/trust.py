"""Whose file is believed: not one that somebody else could have written."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat


def distrust(found: os.stat_result, fd: int) -> str:
    """Return why somebody else could have written what *fd* is open on, or empty where nobody could.

    Ours and root's is believed, unless others may write it. A group of the owner alone is nobody else: where users have
    one each (umask 002 then), every file is writable by its group.

    Args:
        found: its status, by ``os.fstat``.
        fd: a file or directory, ``O_PATH`` will do.
    """
    if found.st_uid not in {os.geteuid(), 0}:
        return f"it belongs to user {found.st_uid}"
    mode = f"its mode is {stat.S_IMODE(found.st_mode):04o}"
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write it ({mode})"
    if found.st_mode & stat.S_IWGRP and not (_is_group_of_owner_alone(found) and not _has_acl(fd)):
        return f"group {found.st_gid} may write it ({mode})"
    return ""


def _is_group_of_owner_alone(found: os.stat_result) -> bool:
    """Say whether the group is the owner's private one: primary, of the same name, without another member."""
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    is_private = owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name
    return is_private and {owner.pw_name}.issuperset(group.gr_mem)


def _has_acl(fd: int) -> bool:
    """Say whether others may be named in an access list, whose mask the mode shows as what the group may do: acl(5)."""
    try:
        os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access")
    except OSError as error:
        return error.errno not in {errno.ENODATA, errno.ENOTSUP}
    except AttributeError:  # macOS shows no list here, and has no private groups either
        return False
    return True
