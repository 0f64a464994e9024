"""Requests for records, in wire form: what a put, a get, a fetch and a store ask of the keeper.

    put      -> [version, [who holds it], range's low]       by the owner; by a task only if it
                                                             has to wait for something first
    get      -> [value or nil, version, range's low, sure]   from memory if the owner is sure, else
                                                             by a task that asks the replicas
    fetch    -> [record] or []                               as a replica, for an owner
    store    -> how many                                     the same; the answer leaves when they
                                                             are durable

All of it is checked here. A put, a get and a store are what a busy peer does all day, so this has a
module of its own, to be compiled (scripts/compile.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from dht.chord import wire
from dht.chord.keeper import Keeper, Write, Written
from dht.chord.member import Member
from dht.chord.records import Record
from dht.chord.ring import key_id
from netstack.rpc.errors import BadRequest, Failed, RpcError, brief
from netstack.rpc.service import Call
from netstack.runtime.runtime import Runtime


class Requests:
    """Between the wire and one process's keeper."""

    def __init__(self, runtime: Runtime, keeper: Keeper) -> None:
        self._runtime = runtime
        self._keeper = keeper

    def __repr__(self) -> str:
        return f"<Requests for {self._keeper!r}>"

    # -- of clients

    def get(self, body: Any, call: Call) -> None:
        """Answered at once if that is possible."""
        if type(body) is not list or len(body) != 2:
            raise BadRequest("get: expected an index and a key")
        key = wire.read_key(body[1])
        member = self._keeper.owner_of(key_id(key), body[0])
        if self._keeper.sure(member):
            call.reply(self._found(member, self._keeper.read_now(member, key), True))
        else:
            call.task = self._runtime.spawn(self._get_with_care(member, key, call), "dht get")

    async def _get_with_care(self, member: Member, key: bytes, call: Call) -> None:
        try:
            gathered = await self._keeper.read(member, key)
        except RpcError as error:
            call.fail(error)
            return
        if gathered.record is None and gathered.silent:
            who = ", ".join(gathered.silent)
            call.fail(Failed("unsure", f"not here; but {who} could not be asked"))
        else:
            call.reply(self._found(member, gathered.record, not gathered.silent))

    def _found(self, member: Member, record: Record | None, sure: bool) -> list[Any]:
        low = wire.pack_id((member.core.pred or member.core.me).id)
        if record is None or not record.alive(self._runtime.clock.wall()):
            return [None, 0, low, sure]
        return [record.value, record.version, low, sure]

    def put(self, body: Any, call: Call) -> None:
        """A new version of one key; without a task, if it need not wait for its turn."""
        if type(body) is not list or len(body) != 5:
            raise BadRequest("put: expected five fields")
        index, key, value, expect, ttl_s = body
        wire.read_key(key)
        if value is not None:
            wire.read_value(value)
        if expect is not None and (type(expect) is not int or expect < 0):
            raise BadRequest(f"put: a version is 0 or more, not {brief(expect)}")
        if type(ttl_s) not in (int, float) or not 0 <= ttl_s < 1e10:
            raise BadRequest(f"put: no time to live: {brief(ttl_s)}")
        member = self._keeper.owner_of(key_id(key), index)
        write = Write(key, value, expect, float(ttl_s))

        def written(record: Record, holders: list[str], error: Exception | None) -> None:
            if error is not None:
                call.fail(error)
                return
            low = wire.pack_id((member.core.pred or member.core.me).id)
            call.reply([record.version, holders, low])

        def begin() -> None:
            if not call.open:
                return  # this process slept; what its caller gave up long ago is done elsewhere
            try:
                if self._keeper.write_now(member, write, written):
                    return
            except Exception as error:
                call.fail(error)
                return
            waiting = self._put_in_turn(member, write, call, written)
            call.task = self._runtime.spawn(waiting, "dht put")

        # Not at once: a call may have been cancelled by what came in the same train.
        asyncio.get_running_loop().call_soon(begin)

    async def _put_in_turn(
        self, member: Member, write: Write, call: Call, written: Written
    ) -> None:
        try:
            record, holders = await self._keeper.write(member, write)
        except Exception as error:
            call.fail(error)
        else:
            written(record, holders, None)

    # -- of owners

    def fetch(self, body: Any, call: Call) -> None:
        """The record of a key, whoever owns it."""
        if type(body) is not list or len(body) != 1:
            raise BadRequest("fetch: expected a key")
        record = self._keeper.store.get(wire.read_key(body[0]))
        call.reply([] if record is None else [list(record)])

    def store(self, body: Any, call: Call) -> None:
        """Copies of an owner's records; a write's are refused by who owns the key itself."""
        if type(body) is not list or len(body) != 3:
            raise BadRequest("store: expected an owner, records, and whether it is a write")
        owner, records = wire.read_contact(body[0]), wire.read_records(body[1])
        if body[2] is True:
            self._keeper.check_fence(owner, records)
        self._keeper.check_room(records)

        def kept(error: Exception | None) -> None:
            if error is None:
                call.reply(len(records))
            else:
                call.fail(error)

        self._keeper.writer.submit(records, kept)
