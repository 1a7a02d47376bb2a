"""The folders between base and boxes (the domains', mostly): made where missing, closed to their groups.

virtual(8) goes through them as a mailbox's user with the mailbox's gid and no other group (set_eugid.c). A
new one is root's, mode 0711: users pass, nobody lists it or renames what is in it. In one that its group may
write, as the how-to has them, every user of the domain can put a folder of his own in the place of another's
box.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from mailmaps.maildirs.action import Action, State
from mailmaps.maildirs.box import Box
from mailmaps.maildirs.folder import WRITABLE_BY_OTHERS, Folder, InTheWay, look, make

DOMAIN_MODE = 0o711


@dataclass
class Step:
    """A folder on the way. `folder` None: not made yet (dry run), or `blocked` says why it is not entered.

    `trusted`: what is in it could not be renamed by its group or by everybody when it was found.
    """

    name: bytes
    path: str
    folder: Folder | None
    trusted: bool = False
    blocked: str = ""
    said_passing: bool = False
    said_owner: bool = False
    for_owner: bool = False  # a box of the folder's own owner has come by
    for_others: bool = False  # a box of another

    def close(self) -> None:
        """Let the folder go."""
        if self.folder is not None:
            self.folder.close()


class Way:
    """The folders from the base to the last box, held open: the next box is mostly in the same one."""

    def __init__(self, base_fd: int, say: Callable[[Action], None], *, apply: bool) -> None:
        self._say = say
        self._apply = apply
        self._state = State.DONE if apply else State.TODO
        base = Folder(os.dup(base_fd))
        self.steps = [Step(b"", "", base, trusted=not base.writable_by_others)]

    def note_base(self) -> None:
        """Say what is to be said of the base itself, which is never changed."""
        base = self.steps[0].folder
        if base is not None and base.writable_by_others:
            wanted = "without g+w and o+w: whoever may write it can rename whole domains"
            self._say(Action(State.NOTE, "", str(base), wanted))

    def enter(self, names: tuple[bytes, ...]) -> Step:
        """Go to the folder of these names, from where the last box was."""
        common = 0
        for step, name in zip(self.steps[1:], names, strict=False):
            if step.name != name:
                break
            common += 1
        self.leave(common + 1)
        for name in names[common:]:
            self.steps.append(self._descend(self.steps[-1], name))
        return self.steps[-1]

    def leave(self, depth: int = 0) -> None:
        """Hold no more than `depth` folders."""
        while len(self.steps) > depth:
            self.steps.pop().close()

    def could_be_anothers(self, box: Box) -> bool:
        """Whether somebody may have renamed a folder into the box's place: a group, or the user himself."""
        ours = [step.folder.uid for step in self.steps if step.folder is not None]
        return not self.steps[-1].trusted or box.uid in ours

    def object_to(self, box: Box) -> None:
        """Say what keeps the box's user from passing, or leaves the box to somebody's mercy; once a folder.

        Neither is mended: who passes, and whose a domain's folder is, is the site's own arrangement.
        """
        for step in self.steps:
            folder = step.folder
            if folder is None:
                continue
            step.for_owner = step.for_owner or folder.uid == box.uid
            step.for_others = step.for_others or folder.uid != box.uid
            if not step.said_passing and not folder.lets_pass(box.uid, box.gid):
                step.said_passing = True
                why = f"uid {box.uid} with gid {box.gid} cannot pass to {box.path}, so its mail is deferred"
                self._left(step.path, str(folder), f"chmod o+x, or a group of theirs: {why}")
            if not step.said_owner and folder.uid != 0 and step.for_owner and step.for_others:
                step.said_owner = True
                why = f"uid {folder.uid} has one of the boxes in it and could replace the others"
                self._left(step.path, str(folder), f"{DOMAIN_MODE:04o} 0:0: {why}")

    def _left(self, path: str, found: str, wanted: str) -> None:
        self._say(Action(State.LEFT, path, found, wanted))

    def _descend(self, above: Step, name: bytes) -> Step:
        path = f"{above.path}{name.decode()}/"
        if above.blocked:
            return Step(name, path, None, blocked=above.blocked)
        try:
            folder = self._found_or_made(above, name, path)
        except InTheWay as error:
            self._left(path, str(error), "a folder (on another disk: mount --bind)")
            return Step(name, path, None, blocked=f"{path} {error}")
        except OSError as error:
            self._say(Action.failed(path, error))
            return Step(name, path, None, blocked=f"{path} cannot be entered")
        if folder is None:
            return Step(name, path, None)
        step = Step(name, path, folder, trusted=above.trusted and not folder.writable_by_others)
        if folder.writable_by_others:
            self._close_to_others(folder, path)
        return step

    def _found_or_made(self, above: Step, name: bytes, path: str) -> Folder | None:
        """The folder, None if it is missing in a dry run. Raises as `make` does."""
        folder = None if above.folder is None else look(above.folder.fd, name)
        if folder is not None:
            return folder
        if self._apply and above.folder is not None:
            folder = make(above.folder.fd, name)
            if folder.uid != 0 or not folder.is_empty():  # somebody was faster; it is judged as his
                return folder
            folder.change(DOMAIN_MODE, 0, 0)
        self._say(Action(self._state, path, "missing", f"{DOMAIN_MODE:04o} 0:0", closes=True))
        return folder

    def _close_to_others(self, folder: Folder, path: str) -> None:
        """Take g-w and o-w, and nothing else."""
        mode, found = folder.mode & ~WRITABLE_BY_OTHERS, str(folder)
        if self._apply:
            try:
                folder.change(mode)
            except OSError as error:
                self._say(Action.failed(path, error))
                return
        wanted = f"{mode:04o}: whoever may write it could replace the boxes in it"
        self._say(Action(self._state, path, found, wanted, closes=True))
