"""The language of the transcripts: commands to a stage of cores, and what is seen of them.

    add-nodes 3 [pre-vote=off …]      n1 to n3, all voters; options as in OPTIONS
    join n4                           a node that nobody knows yet
    campaign n1                       n1 hears nothing until its election timeout is over; whoever
                                      leads meanwhile goes on doing so
    elect n1                          the same, and all that follows until everybody follows n1
    gone n1 n2                        n1 is told that the process of n2 is dead
    beat n1                           n1 leads, and its next heartbeats are due
    heartbeats n1 3                   as often, and each time everything is delivered
    wait 200ms                        the clock goes on, and nothing happens
    propose n1 a b                    a client's commands
    read n1                           a client's read
    transfer n1 n2, config n1 +n4 -n3, snapshot n1
    deliver [n1->n2 …]                what is on the wire now, or on these links; told in full
    stabilize                         deliver until nobody has more to say; only what it leads to
    drop [n1->n2 …]                   what is on the wire now, or on these links, is lost
    cut n1 [n2 …], heal               from now on nothing gets through between them and the rest
    crash n1, restart n1              only what is on its disk is left
    slow-disk n1, sync n1             writes wait, until they are told to finish
    wire, status, log n1              what can be seen; in a log, what is committed | and the rest

Entries are written index/term and their content; `n1 -> n2` is a message; lines indented below it
are what it led to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from core_kit import MODERN, Desk, Stage, of

from raftd import messages as m
from raftd.errors import RaftError
from raftd.log import COMMAND, CONFIG, Entry, HardState
from raftd.membership import Membership
from raftd.outputs import Apply, Doubt, Emit, Output, Persist, ReadFailed, ReadReady, Restore

OPTIONS = {
    "pre-vote": "pre_vote",
    "check-quorum": "check_quorum",
    "lease-reads": "lease_reads",
    "keep": "keep_entries",
    "append": "max_append_entries",
    "chunk": "snapshot_chunk_bytes",
    "caught-up": "caught_up_entries",
}


def blocks(text: str) -> Iterator[tuple[list[str], str]]:
    """(prose before it, command); what stands below a command up to an empty line answers it."""
    prose: list[str] = []
    answering = False
    for line in text.splitlines():
        if line.startswith("> "):
            yield prose, line.removeprefix("> ")
            prose, answering = [], True
        elif answering:
            answering = bool(line)
        else:
            prose.append(line)
    yield prose, ""


# -- how things look


def show_entry(entry: Entry) -> str:
    content = "(blank)"
    if entry.kind == COMMAND:
        content = entry.data.decode()
    elif entry.kind == CONFIG:
        content = f"({Membership.unpack(entry.data)})"
    return f"{entry.index}/{entry.term} {content}"


def show_entries(entries: list[Entry]) -> str:
    return ", ".join(map(show_entry, entries))


def flags(**given: bool) -> str:
    return "".join(f" {name}" for name, is_set in given.items() if is_set)


SHOWN = {
    m.VoteRequest: lambda x: (
        f"last={x.last_index}/{x.last_term}" + flags(pre=x.pre, forced=x.forced)
    ),
    m.VoteReply: lambda x: ("granted" if x.granted else "refused") + flags(pre=x.pre),
    m.AppendEntries: lambda x: (
        f"prev={x.prev_index}/{x.prev_term} commit={x.commit} [{show_entries(x.entries)}]"
    ),
    m.AppendReply: lambda x: (
        f"has all up to {x.index}"
        if x.accepted
        else f"refused prev={x.index}, try {x.hint_index}/{x.hint_term}"
    ),
    m.Heartbeat: lambda x: f"commit={x.commit} round={x.context}",
    m.HeartbeatReply: lambda x: f"round={x.context}",
    m.InstallSnapshot: lambda x: (
        f"last={x.index}/{x.last_term} bytes {x.offset}.."
        f"{x.offset + len(x.data)} of {x.total}, {Membership.unpack(x.membership)}"
    ),
    m.SnapshotReply: lambda x: f"of {x.index} has {x.offset} bytes",
    m.TimeoutNow: lambda x: "",
    m.ReadIndex: lambda x: f"read {x.token}",
    m.ReadIndexReply: lambda x: f"read {x.token} at {x.index or 'no index'}",
}


def show_message(source: str, to: str, message: m.Message) -> str:
    name, rest = type(message).__name__, SHOWN[type(message)](message)
    return f"{source} -> {to} {name} term={message.term} {rest}".rstrip()


def show_event(event: Emit) -> str:
    given = event.fields
    if event.kind == "raft.role":
        role, term, leader = given["role"], given["term"], given.get("leader")
        of_whom = f", follows {leader}" if leader else ""
        by = f", elected by {', '.join(given['votes'])}" if "votes" in given else ""
        return f"becomes {role}, term {term}{of_whom}{by}"
    if event.kind == "raft.membership":
        return f"proposes {given['membership']}"
    if event.kind == "raft.quorum_lost":
        return f"has heard of too few: {', '.join(given['heard']) or 'nobody'}"
    if event.kind in ("raft.transfer", "raft.removed"):
        return f"notes: {given['cause']}" if "cause" in given else f"hands over to {given['to']}"
    return ""


def show_persist(persist: Persist, before: HardState) -> str:
    done = []
    if persist.snapshot is not None:
        done.append(f"snapshot {persist.snapshot[0].index}/{persist.snapshot[0].term}")
    if persist.truncate_from is not None:
        done.append(f"without {persist.truncate_from} and behind")
    if persist.entries:
        done.append(show_entries(persist.entries))
    state = persist.hard_state
    if state is not None and (state.term, state.vote) != (before.term, before.vote):
        done.append(f"term {state.term}, vote {state.vote or 'for nobody'}")
    return f"saves {'; '.join(done)}" if done else ""


def show_output(output: Output) -> str:
    if isinstance(output, Emit):
        return show_event(output)
    if isinstance(output, Apply):
        return f"applies {show_entries(output.entries)}"
    if isinstance(output, Restore):
        return f"takes over the state of {output.meta.index}/{output.meta.term}"
    if isinstance(output, ReadReady):
        return f"may serve read {output.token} once it has applied {output.index}"
    assert isinstance(output, ReadFailed)
    return f"cannot serve read {output.token}"


# -- the commands


class Theatre:
    """Carries out one command after another."""

    def __init__(self) -> None:
        self.stage: Stage
        self.saved: dict[str, HardState] = {}
        self.tokens = 0

    def play(self, command: str) -> list[str]:
        verb, *words = command.split()
        act = getattr(self, "do_" + verb.replace("-", "_"), None)
        if act is None:
            raise ValueError(f"no such command: {verb}")
        try:
            return list(act(*words))
        except RaftError as refused:
            return [f"refused: {refused}"]

    def seen(self, name: str) -> list[str]:
        """What a node has done since it was last looked at; what it says goes on the wire."""
        desk = self.stage[name]
        lines = []
        for output in desk.done:
            if isinstance(output, Persist):
                line = show_persist(output, self.saved.get(name, HardState()))
                self.saved[name] = output.hard_state or self.saved.get(name, HardState())
            elif isinstance(output, Doubt):
                continue  # each command says how long a silence lasts
            else:
                line = show_output(output)
            lines += [f"{name} {line}"] if line else []
        desk.done = []
        self.stage.post(name)
        return lines

    def on_the_wire(self, links: tuple[str, ...]) -> list[int]:
        wire = self.stage.wire
        return [i for i, (a, b, _) in enumerate(wire) if not links or f"{a}->{b}" in links]

    # nodes

    def do_add_nodes(self, count, *options):
        given = dict(option.split("=") for option in options)
        values = {"on": True, "off": False}
        chosen = {OPTIONS[k]: values.get(v) if v in values else int(v) for k, v in given.items()}
        names = " ".join(f"n{number}" for number in range(1, int(count) + 1))
        self.stage = Stage(names, options=replace(MODERN, **chosen))
        return self.do_status()

    def do_join(self, name):
        return [repr(self.stage.join(name).raft)]

    def do_crash(self, name):
        self.stage.crash(name)
        return [f"{name} is down"]

    def do_restart(self, name):
        self.stage.restart(name)
        return [repr(self.stage[name].raft)]

    # time

    def do_campaign(self, name):
        lines = self._meanwhile(name)
        self.stage[name].time_out()
        return lines + self.seen(name)

    def _meanwhile(self, name: str) -> list[str]:
        """What other leaders do while `name` hears nothing; what is on the wire stays there."""
        stage, lines = self.stage, []
        kept, stage.wire = stage.wire, []
        others = [desk for other, desk in stage.desks.items() if other not in {name, *stage.down}]
        while leading := [d for d in others if d.raft.leading is not None]:
            first = min(leading, key=lambda desk: desk.raft.next_deadline())
            if first.raft.next_deadline() >= stage[name].stands_at:
                break
            first.fire()
            lines += self.seen(first.name)
            stage.wire = [item for item in stage.wire if item[1] != name]
            lines += self.do_stabilize()
        stage.wire = kept
        return lines

    def do_gone(self, name, dead):
        self.stage[name].raft.leader_gone(dead, self.stage.clock.now)
        self.stage[name].pump()
        return self.seen(name)

    def do_elect(self, name):
        self.do_campaign(name)
        self.do_stabilize()
        self.do_heartbeats(name, 1)
        return [repr(self.stage[name].raft)]

    def do_beat(self, name):
        desk = self.stage[name]
        while desk.raft.leading is not None and not of(m.Heartbeat, desk.fire()):
            pass
        return self.seen(name)

    def do_heartbeats(self, name, times):
        return [
            line for _ in range(int(times)) for line in self.do_beat(name) + self.do_stabilize()
        ]

    def do_wait(self, how_long):
        self.stage.clock.now += int(how_long.removesuffix("ms")) / 1000
        return []

    # clients and operators

    def do_propose(self, name, *commands):
        self.stage[name].propose(*(command.encode() for command in commands))
        return self.seen(name)

    def do_read(self, name):
        self.tokens += 1
        self.stage[name].read(self.tokens)
        return [f"read {self.tokens}", *self.seen(name)]

    def do_transfer(self, name, to):
        self.stage[name].transfer(to)
        return self.seen(name)

    def do_config(self, name, *changes):
        desk = self.stage[name]
        wanted = desk.raft.membership
        gone = [change[1:] for change in changes if change[0] == "-"]
        new = {c[1:]: ("127.0.0.1", 7400 + int(c[2:])) for c in changes if c[0] == "+"}
        wanted = wanted.adding(new) if new else wanted
        desk.change(wanted.removing(gone) if gone else wanted)
        return self.seen(name)

    def do_snapshot(self, name):
        meta = self.stage[name].compact()
        first = self.stage[name].raft.log.first_index
        lines = [f"{name} has a snapshot of {meta.index}/{meta.term}; its log begins at {first}"]
        return lines + self.seen(name)

    # the disk

    def do_slow_disk(self, name):
        self.stage[name].slow_disk = True
        return []

    def do_sync(self, name):
        self.stage[name].sync()
        return self.seen(name)

    # the wire

    def do_deliver(self, *links):
        lines = []
        for delivered, place in enumerate(self.on_the_wire(links)):
            source, to, message = self.stage.wire[place - delivered]
            lost = f"    (lost: {to} is down)" if to in self.stage.down else ""
            lines += [show_message(source, to, message) + lost]
            lines += self._hand_over(place - delivered, to)
        return lines

    def do_stabilize(self):
        lines = []
        while self.stage.wire:
            lines += [line.strip() for line in self._hand_over(0, self.stage.wire[0][1])]
        return lines

    def _hand_over(self, place: int, to: str) -> list[str]:
        if to in self.stage.down:
            self.stage.wire.pop(place)
            return []
        self.stage.deliver(place)
        return [f"    {line}" for line in self.seen(to)]

    def do_drop(self, *links):
        return [
            f"lost: {show_message(*self.stage.wire.pop(place - dropped))}"
            for dropped, place in enumerate(self.on_the_wire(links))
        ]

    def do_cut(self, *names):
        self.stage.isolate(*names)
        return []

    def do_heal(self):
        self.stage.heal()
        return []

    # what can be seen

    def do_wire(self):
        return [show_message(*item) for item in self.stage.wire]

    def do_status(self):
        desks = self.stage.desks.items()
        return [
            f"{name} is down" if name in self.stage.down else repr(desk.raft)
            for name, desk in desks
        ]

    def do_log(self, *names):
        return [f"{name}: {self._log(self.stage[name])}" for name in names or self.stage.desks]

    def _log(self, desk: Desk) -> str:
        log, commit = desk.raft.log, desk.raft.commit
        done = log.slice(log.first_index, commit)
        rest = log.slice(max(commit + 1, log.first_index), log.last_index)
        base = f"snapshot {log.snapshot_index}/{log.snapshot_term}"
        parts = [base] if log.snapshot_index else []
        parts += [show_entries(done)] if done else []
        return f"{', '.join(parts)} | {show_entries(rest)}" if rest else ", ".join(parts)
