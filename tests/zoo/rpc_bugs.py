"""Planted bugs of calls, streams and links, each one thing that is easily got wrong."""

from __future__ import annotations

from netstack.rpc import dedup, frames
from netstack.rpc.client import RpcClient
from netstack.rpc.connection import RpcConnection
from netstack.rpc.dialler import Dialler
from netstack.rpc.errors import ConnectionLost, from_wire
from netstack.rpc.incoming import END, Incoming
from netstack.rpc.node import Link
from netstack.rpc.service import Call, RpcService
from netstack.transport.errors import BufferFull
from netstack.transport.peer import Peer

# -- at most once


class RunsCopies(dedup.OnceTable):
    def begin(self, client_id, sequence, done, *, retry):
        super().begin(client_id, sequence, done, retry=retry)
        return dedup.NEW


class ForgetsWhoWaits(dedup.OnceTable):
    def finish(self, client_id, sequence, outcome):
        super().finish(client_id, sequence, outcome)
        return []


class RemembersEverything(dedup.OnceTable):
    def begin(self, client_id, sequence, done, *, retry):
        return super().begin(client_id, sequence, 0, retry=retry)


class ForgetsThatItForgot(dedup.OnceTable):
    def begin(self, client_id, sequence, done, *, retry):
        verdict = super().begin(client_id, sequence, done, retry=retry)
        self._clients[client_id].since = 0
        return verdict


class TakesAnyLifeForItsOwn(RpcService):
    def _first_time(self, method, call, key):
        return super()._first_time(method, call, [*key[:3], None])


class RepeatsPlainCalls(RpcClient):
    async def call(self, method, body=None, *, timeout_s=5.0, idempotent=False, once=False):
        return await super().call(method, body, timeout_s=timeout_s, idempotent=not once, once=once)


class NeverRepeats(RpcClient):
    async def call(self, method, body=None, *, timeout_s=5.0, idempotent=False, once=False):
        return await super().call(method, body, timeout_s=timeout_s)


class BelievesTheLastTry(RpcClient):
    async def call(self, method, body=None, **how):
        try:
            return await super().call(method, body, **how)
        except ConnectionLost as error:
            raise error.__cause__ or error from None


class DiesWithItsConnection(Call):
    connection_lost = Call.abandon


class WorksForNobody(Call):
    def connection_lost(self):
        return


# -- calls


class IgnoresWhoMayCall(RpcService):
    @staticmethod
    def _allowed(method, connection):
        return True


class HasNoLimit(RpcService):
    def _admit(self, name, connection):
        self._calls_max = 2**31
        return super()._admit(name, connection)


class TakesCallsWhileItDrains(RpcService):
    def _admit(self, name, connection):
        draining, self.draining = self.draining, False
        try:
            return super()._admit(name, connection)
        finally:
            self.draining = draining


class IgnoresDeadlines(RpcService):
    async def _run(self, method, body, call, connection):
        call.deadline = float("inf")
        await super()._run(method, body, call, connection)


class WorksOnWhenCancelled(Call):
    def abandon(self):
        self.task = None
        super().abandon()


class KeepsCountingTheCancelled(Call):
    def abandon(self):
        self._service.open_calls += 1
        super().abandon()


class WaitsForever(RpcConnection):
    def _sweep(self):
        return


class DialsForEachCall(RpcClient):
    async def _connected(self, deadline):
        return await self._dial()


class SpendsAPacketOnEachMessage(RpcConnection):
    def _push(self, data, stream):
        super()._push(data, stream)
        self._peer._host._flush()


class ReportsNothing(RpcConnection):
    def report(self, error):
        return


class TellsNobodyWhatWasDropped(RpcConnection):
    def notify(self, message, *, bulk=False):
        super().notify(message, bulk=bulk)
        return True


class NeverHoldsBack(RpcConnection):
    congested = False


class WaitsForRoomWithoutEnd(RpcConnection):
    async def wait_for_room(self, timeout_s):
        return await super().wait_for_room(1e6)


class WakesNoWriter(Peer):
    def wake_writers(self):
        return


class HoardsWhatIsNotRead(RpcConnection):
    def _push(self, data, stream):
        try:
            stream.push(data)
        except BufferFull:
            self.counters["unread"] += 1


class ReadsOnAfterNonsense(RpcConnection):
    def abort(self, reason):
        return


class ReadsOnWhenItIsOver(RpcConnection):
    def _receiver(self):
        decoder = frames.Decoder()

        def received(data, fin):
            try:
                for message in decoder.feed(data):
                    self._dispatch(message)
            except frames.ProtocolError as error:
                self.abort(str(error))

        return received


class StaysWithHalfALane(RpcConnection):
    def _stream_opened(self, stream):
        super()._stream_opened(stream)
        stream.on_reset = None


class HasOneLane(RpcConnection):
    def notify(self, message, *, bulk=False):
        return super().notify(message)


def is_always_sure(fields):
    error = from_wire(fields)
    error.definite = True
    return error


# -- server streams


class SendsWithoutCredit(Call):
    async def send_item(self, body):
        self._credit = 2**31
        await super().send_item(body)


class GivesNoCredit(Incoming):
    def consumed(self):
        return False


class TakesALossForTheEnd(Incoming):
    def put(self, item):
        super().put(END if isinstance(item, ConnectionLost) else item)


class TakesAnyNumberOfItems(RpcConnection):
    def _incoming(self, id_):
        return self._streams.get(id_)


class LetsTheProducerRunOn(RpcConnection):
    def send(self, message):
        if message[0] != frames.CANCEL:
            super().send(message)


# -- links and dials


class AlwaysDials(Link):
    def __init__(self, of, name, address, service):
        super().__init__(of, name, address, service)
        if self._dialler is None:
            of.runtime.spawn(self._keep_dialled(), "one more")


class KeepsTheOlder(Link):
    def _use(self, connection):
        if self.connection is None:
            super()._use(connection)


class DialsOnce(Link):
    async def _keep_dialled(self):
        connection = await self._node.dial(self.address, self._service, self.name, 2.0)
        self._use(connection)


class IgnoresWhoCameBefore(RpcConnection):
    dialled = property(lambda self: True, lambda self, value: None)


class DialsInHaste(Dialler):
    async def dial(self, *, patient=True):
        self._began = float("-inf")
        return await super().dial(patient=patient)


class RevivesWhenItIsCalled(RpcClient):
    async def close(self):
        await super().close()
        self._closed = False


class LingersWhenUnlinked(Link):
    async def close(self):
        return
