"""Looks after boxes, one by one: makes what is missing, puts right what is safe to, and says the rest.

virtual(8) (src/virtual/maildir.c) opens BASE/BOX/tmp/FILE as the mailbox's uid and gid, and links it to new;
the box has to be that user's, and so do cur, new and tmp, which he makes himself (make_dirs.c, 0700) where he
may.

What makes root's part safe: *a folder changes hands only while it is root's own and empty*, unless the
postmaster says otherwise (`hand_over`). A mailbox's user may swap, rename and link what is in his box at any
moment and, where a domain's folder is writable by its group, the boxes of others too. By that rule he gains
nothing: what he can slip in is his already, or another's (left alone), or root's and empty, as was the one
meant for him. Making cur, new and tmp under the user's own rights, as virtual(8) does, would be as safe, but
seteuid(2) is of the whole process, and a daemon that does other things may call `make_box`.

Nothing is deleted or renamed, no symbolic link followed, no message looked at.
"""

from __future__ import annotations

import os
import stat

from mailmaps.maildirs.action import Action, State
from mailmaps.maildirs.box import Box
from mailmaps.maildirs.folder import Folder, InTheWay, kind, look, make, status
from mailmaps.maildirs.way import Step, Way

BOX_MODE = 0o700
INSIDE = (b"cur", b"new", b"tmp")
_RWX = 0o777


def open_base(path: str) -> int:
    """A descriptor of virtual_mailbox_base, which may be a symbolic link: it is the postmaster's own.

    Raises `OSError`.
    """
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def make_box(base_fd: int, box: Box, *, apply: bool = True, hand_over: bool = False) -> list[Action]:
    """Make one box and put it right; what was done and what was left, nothing if all was well.

    `base_fd` comes from `open_base`. Some twenty system calls if all is well. What the system refuses is
    `State.FAILED`. Raises `OSError` only when the base itself cannot be looked at.
    """
    with Walk(base_fd, apply=apply, hand_over=hand_over) as walk:
        return walk.handle(box)


class Walk:
    """Looks after boxes below one base; cheapest if those of one folder come one after another."""

    def __init__(self, base_fd: int, *, apply: bool, hand_over: bool = False) -> None:
        """`hand_over`: a box of another user becomes the box's user's, but not the messages in it.

        Raises `OSError`.
        """
        self._apply = apply
        self._hand_over = hand_over
        self._state = State.DONE if apply else State.TODO
        self._said: list[Action] = []
        self._way = Way(base_fd, lambda action: self._said.append(action), apply=apply)

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._way.leave()

    def notes(self) -> list[Action]:
        """What is to be said of the base."""
        self._said = []
        self._way.note_base()
        return self._said

    def handle(self, box: Box) -> list[Action]:
        """Look after one box; what is to be said of it, and of folders that are entered for it."""
        self._said = []
        try:
            step = self._way.enter(box.names[:-1])
            self._way.object_to(box)
            if step.blocked:
                self._say(State.LEFT, box.path, "not looked at", step.blocked)
            elif box.is_file:
                self._file(step, box)
            else:
                self._box(step, box)
        except InTheWay as error:
            self._say(State.LEFT, box.path, str(error), _wanted(box))
        except OSError as error:
            self._said.append(Action.failed(box.path, error))
        return self._said

    def _say(self, state: State, path: str, found: str, wanted: str) -> None:
        self._said.append(Action(state, path, found, wanted))

    def _box(self, above: Step, box: Box) -> None:
        folder = None if above.folder is None else look(above.folder.fd, box.names[-1])
        if folder is not None:
            with folder:
                self._settle_all(folder, box, str(folder))
        elif self._apply and above.folder is not None:
            with make(above.folder.fd, box.names[-1]) as folder:
                self._settle_new(folder, box)
        else:
            self._say(State.TODO, box.path, "missing", f"{_wanted(box)} with cur, new, tmp")

    def _settle_new(self, folder: Folder, box: Box) -> None:
        """One line says it all, unless something goes wrong."""
        before = len(self._said)
        self._settle_all(folder, box, "missing")
        if len(self._said) > before and all(one.state is State.DONE for one in self._said[before:]):
            del self._said[before:]
            self._say(State.DONE, box.path, "missing", f"{_wanted(box)} with cur, new, tmp")

    def _settle_all(self, folder: Folder, box: Box, found: str) -> None:
        """The box, then what is in it.

        In this order a run that is cut short leaves what the next one takes up: empty folders of root.
        """
        if self._settle(folder, box, box.path, found):
            for name in INSIDE:
                self._inside(folder, name, box)

    def _inside(self, parent: Folder, name: bytes, box: Box) -> None:
        path = f"{box.path}{name.decode()}/"
        try:
            if folder := look(parent.fd, name):
                with folder:
                    self._settle(folder, box, path, str(folder))
            elif self._apply:
                with make(parent.fd, name) as folder:
                    self._settle(folder, box, path, "missing")
            else:
                self._say(State.TODO, path, "missing", _wanted(box))
        except InTheWay as error:
            self._say(State.LEFT, path, str(error), _wanted(box))
        except OSError as error:
            self._said.append(Action.failed(path, error))

    def _settle(self, folder: Folder, box: Box, path: str, found: str) -> bool:
        """Make the folder the user's, with mode 0700, if that is safe; whether it is (or would be) his now.

        The setgid bit of a folder that is his already is the site's, and stays.
        """
        if refusal := self._refusal(folder, box):
            self._say(State.LEFT, path, str(folder), f"{_wanted(box)}: {refusal}")
            return False
        if (folder.uid, folder.gid, folder.mode & _RWX) == (box.uid, box.gid, BOX_MODE):
            return True
        if self._apply:
            kept = folder.mode & ~_RWX if folder.uid == box.uid else 0
            folder.change(BOX_MODE | kept, box.uid, box.gid)
        self._say(self._state, path, found, _wanted(box))
        return True

    def _refusal(self, folder: Folder, box: Box) -> str:
        """Why the folder may not become the user's; empty: it may, or is.

        One of another user can be that user's own box under a wrong name: whoever could write the domain's
        folder before could have renamed it, and would now be given another's mail.
        """
        if folder.uid == 0:
            if folder.is_empty():
                return ""
            folder.look_again()  # another run may just have given it away
        if folder.uid == box.uid:
            return ""
        whose = "something of root's is in it" if folder.uid == 0 else f"it is uid {folder.uid}'s"
        if not self._hand_over:
            return f"{whose}; look, then --hand-over, or chown -hR {box.owner} which takes the messages too"
        if self._way.could_be_anothers(box):
            return f"{whose}, and others could have renamed it; look, then chown -hR {box.owner}"
        return ""

    def _file(self, above: Step, box: Box) -> None:
        """An mbox file and its lock are made by virtual(8), as the user, in a folder that he may write."""
        wanted = f"a file of {box.owner}: no final /, so an mbox, which is not made"
        found = None if above.folder is None else status(above.folder.fd, box.names[-1])
        if found is None:
            self._say(State.LEFT, box.path, "missing", wanted)
        elif not stat.S_ISREG(found.st_mode) or found.st_uid != box.uid:
            self._say(State.LEFT, box.path, f"{kind(found)}, of uid {found.st_uid}", wanted)


def _wanted(box: Box) -> str:
    return f"{BOX_MODE:04o} {box.owner}"
