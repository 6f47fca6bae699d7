# SPDX-License-Identifier: GPL-2.0-only
"""complete.py bash|zsh SCRIPTS HERE: types each line of the standard input into that shell, which is
in the folder HERE, has it insert all completions, and prints what the line then is. SCRIPTS is the
folder with the completion scripts."""

import os
import pty
import select
import sys

TIMEOUT = 120

SETUP = {
    "bash": """
PS1=; bind 'set bell-style none'
. "$SCRIPTS/qcow.bash"
bind '"\\C-x\\C-a": insert-completions'
dump() { printf '%s\\n' "$READLINE_LINE" >"$ANSWERS"; }
bind -x '"\\C-x\\C-p": dump'
echo >"$ANSWERS"
""",
    "zsh": """
PS1=; unsetopt beep prompt_sp
fpath=("$SCRIPTS" $fpath); autoload -Uz compinit; compinit -u -D
zstyle ':completion:all:*' completer _all_matches _complete
zstyle ':completion:all:*' insert yes
zle -C all complete-word _generic
dump() { print -r -- "$BUFFER" >"$ANSWERS" }
zle -N dump
bindkey -e
bindkey '^X^A' all
bindkey '^X^P' dump
echo >"$ANSWERS"
""",
}
ARGV = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
# None that means something to the terminal itself: between two lines it interprets what is typed.
INSERT, DUMP, CLEAR = "\x18\x01", "\x18\x10", "\x01\x0b"


class Shell:
    def __init__(self, name, scripts, here):
        setup, answers = os.path.abspath(f"setup.{name}"), os.path.abspath(f"answers-of.{name}")
        with open(setup, "w") as f:
            f.write(SETUP[name])
        os.mkfifo(answers)
        # Writable too, so that it never ends.
        self.answers = os.open(answers, os.O_RDWR)
        pid, self.tty = pty.fork()
        if not pid:
            os.environ.update(TERM="dumb", LC_ALL="C.UTF-8")
            os.environ.update(SCRIPTS=scripts, ANSWERS=answers, SETUP=setup)
            os.chdir(here)
            os.execvp(name, ARGV[name])
        # Answered when the set-up is complete: what is typed before may be lost.
        self.type('. "$SETUP"\r')
        self.read()

    def type(self, keys):
        os.write(self.tty, keys.encode())

    def read(self):
        """The line that the shell answers; meanwhile what it shows is taken away, or it would wait."""
        said, answer = b"", b""
        while not answer.endswith(b"\n"):
            ready = select.select([self.tty, self.answers], [], [], TIMEOUT)[0]
            if not ready:
                sys.exit(f"no answer from the shell; it said {said!r}")
            if self.tty in ready:
                said += os.read(self.tty, 65536)
            if self.answers in ready:
                answer += os.read(self.answers, 65536)
        return answer.decode()

    def complete(self, line):
        self.type(line + INSERT + DUMP)
        answer = self.read()
        self.type(CLEAR)
        return answer


def main():
    shell = Shell(*sys.argv[1:4])
    for line in sys.stdin:
        print(shell.complete(line.rstrip("\n")), end="", flush=True)


main()
