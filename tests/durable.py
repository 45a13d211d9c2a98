"""The os module of the files room, watched: is what was done on the disk before more is done?"""

from __future__ import annotations

import os
from pathlib import Path


class Durable:
    """Stands for `os` in files/disk.py; `lost` says what a power loss would have taken, and when.

    A file has to be flushed before it is renamed, and a name (a rename, or a new file that is
    appended to) before the next one is made or a line is appended anywhere.
    """

    def __init__(self):
        self.paths, self.unflushed, self.lost, self.renames, self.appends = {}, set(), [], 0, 0

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, *mode):
        path = Path(path)
        appended = bool(flags & os.O_APPEND)
        if appended:
            self.appends += 1
            self.settled(f"appending to {path.name}")
        made = appended and not path.exists()
        descriptor = os.open(path, flags, *mode)
        self.paths[descriptor] = path
        if made:
            self.unflushed.add(path.parent)
        return descriptor

    def write(self, descriptor, data):
        self.unflushed.add(self.paths[descriptor])
        return os.write(descriptor, data)

    def fsync(self, descriptor):
        self.unflushed.discard(self.paths[descriptor])
        os.fsync(descriptor)

    def replace(self, old, new):
        self.renames += 1
        self.settled(f"renaming to {Path(new).name}", Path(old))
        os.replace(old, new)  # noqa: PTH105 - it stands for that module
        self.unflushed.add(Path(new).parent)

    def settled(self, what, *also):
        """Note what is not flushed: all but other files under temporary names."""
        named = {path for path in self.unflushed if not path.name.startswith(".echovec-")}
        self.lost += [f"{path.name} before {what}" for path in named | (self.unflushed & {*also})]
