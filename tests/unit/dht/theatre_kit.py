"""Transcripts: commands to a ring of cores, and what comes of them.

> ring 10 80 85 102 113 120        an ideal ring, fingers too
> kill 85 102                      without a word
> stabilise 113 102                one round of these, in this order
> turn 3                           rounds of stabilisation
> join 36 through 20
> owner 90 from 10                 a look-up, hop by hop
> walk 90 from 10                  the same, successor by successor
> show 80                          its pointers
> list 1                           length of successor lists, before `ring`
"""

from __future__ import annotations

from rehearsal_kit import Rehearsal


class Theatre:
    def __init__(self) -> None:
        self.successors = 3
        self.ring = Rehearsal()

    def play(self, line: str) -> list[str]:
        verb, *words = line.split()
        return getattr(self, f"_{verb}")(*words)

    def _list(self, length: str) -> list[str]:
        self.successors = int(length)
        return []

    def _ring(self, *numbers: str) -> list[str]:
        self.ring = Rehearsal(successors=self.successors, judged=False)
        self.ring.bootstrap(*map(int, numbers))
        self.ring.fix_all_fingers()
        return [f"{len(numbers)} members"]

    def _kill(self, *numbers: str) -> list[str]:
        for number in numbers:
            self.ring.kill(int(number))
        return []

    def _turn(self, rounds: str) -> list[str]:
        self.ring.turn(int(rounds))
        return [f"{len(self.ring.flaws())} pointers are not ideal"]

    def _stabilise(self, *numbers: str) -> list[str]:
        for number in numbers:
            node = self.ring.nodes[int(number)]
            node.stabilise(self.ring.now)
            self.ring.collect(node)
            self.ring.quiet()
        return []

    def _join(self, number: str, _: str, through: str) -> list[str]:
        self.ring.join(int(number), int(through))
        self.ring.quiet()
        return self._show(number)

    def _owner(self, target: str, _: str, start: str) -> list[str]:
        return self._found(self.ring.look_up(int(target), int(start)))

    def _walk(self, target: str, _: str, start: str) -> list[str]:
        return self._found(self.ring.look_up(int(target), int(start), walk=True))

    def _found(self, lookup) -> list[str]:
        owners = lookup.found.owners if lookup.found else ()
        living = [c for c in owners if c.id in self.ring.nodes]
        silent = [*lookup.dead, *(owners[: owners.index(living[0])] if living else owners)]
        lines = ["by " + " ".join(f"N{c.id}" for c in lookup.path)]
        if silent:
            lines.append("silent " + " ".join(f"N{c.id}" for c in silent))
        return [*lines, f"K{lookup.target} is N{living[0].id}'s" if living else "nobody knows"]

    def _show(self, number: str) -> list[str]:
        node = self.ring.nodes[int(number)]
        succ = " ".join(f"N{c.id}" if c.real else "-" for c in node.succ)
        fingers = " ".join(f"+{1 << i}:N{c.id}" for i, c in sorted(node.fingers.items()))
        pred = f"N{node.pred.id}" if node.pred else "-"
        return [f"N{number}: after {pred}, before {succ}" + (f"; {fingers}" if fingers else "")]


def played(text: str) -> str:
    """The transcript with the answers that the cores give."""
    theatre, lines = Theatre(), []
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *("  " + answer for answer in theatre.play(line[2:]))]
        elif not line.startswith("  "):
            lines.append(line)
    return "\n".join(lines) + "\n"
