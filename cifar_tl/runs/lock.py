"""Try for an flock. The kernel drops such a lock with the process that holds it, whichever way that ends."""

import fcntl

# Mode of files that others may have to write, less the umask: several users of a machine share its devices.
OPEN_TO_ALL = 0o666


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file, without waiting; False if another open file of it holds the lock."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
