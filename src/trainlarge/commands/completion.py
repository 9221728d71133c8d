"""``trainlarge completion``: the script by which a shell completes command lines, and what the script asks for."""

from __future__ import annotations

import argparse
from contextlib import suppress

from trainlarge.commands.call import Call
from trainlarge.commands.verbs import verb_parser
from trainlarge.errors import UserError

_INSTALL = """to have it in every shell, put into its start file
  bash (~/.bashrc):                     eval "$(trainlarge completion bash)"
  zsh (~/.zshrc, after compinit):       eval "$(trainlarge completion zsh)"
  fish (~/.config/fish/config.fish):    trainlarge completion fish | source"""
_BASH = r"""
_trainlarge() {
  local IFS=$'\n'
  COMPREPLY=($("$1" completion bash --breaks "$COMP_WORDBREAKS" --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
  if [[ ${COMPREPLY[0]-} == *[=./] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _trainlarge trainlarge
"""
_ZSH = r"""
_trainlarge() {
  local -a found unfinished
  found=(${(f)"$($words[1] completion zsh --line "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
  unfinished=(${(M)found:#*[=./]})
  found=(${found:#*[=./]})
  (( $#unfinished )) && compadd -S '' -- $unfinished
  (( $#found )) && compadd -- $found
  (( $#unfinished + $#found )) || _files
}
compdef _trainlarge trainlarge
"""
_FISH = r"""
complete -c trainlarge -f -a '(trainlarge completion fish --line (commandline -cp | string collect) 2>/dev/null)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""Shell -> what defines the completion in it. Each hands over the line up to the cursor."""


def main(call: Call) -> int:
    """Print the script of a shell or, where the script asks, what a command line can become."""
    options = parser().parse_args(call.arguments)
    if options.line is None:
        print(SCRIPTS[options.shell].strip())
        return 0
    # A study that cannot be read, or a key that is not there, must not disturb who is typing.
    with suppress(UserError, OSError):
        for word in complete(options.line, options.breaks):
            print(word)
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("completion", epilog=_INSTALL)
    made.add_argument("shell", choices=SCRIPTS, help="bash, zsh or fish")
    made.add_argument("--line", help=argparse.SUPPRESS)
    made.add_argument("--breaks", default="", help=argparse.SUPPRESS)
    return made


def complete(line: str, breaks: str = "") -> list[str]:
    """What a shell is to put in the place of the word that is being typed.

    Args:
        line: the command line up to the cursor.
        breaks: characters at which the shell starts another word, so that only what is behind the last is replaced:
            ``=`` and ``:`` of bash.
    """
    from trainlarge.commands.suggestions import suggestions

    typed = line.split(" ")[-1]
    cut = max((typed.rfind(character) for character in "=:" if character in breaks), default=-1) + 1
    return [word[cut:] for word in suggestions(line)]
