"""What Chord's parts look like in a message, checked on the way in.

    contact      [name, host, port, index]; its identifier is computed, never taken from the wire
    identifier   20 bytes
    record       [key, value or nil, version, tag, expires]

A successor list travels with nil for its placeholders. Everything that does not fit is BadRequest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dht.chord.lookup import Route
from dht.chord.outputs import BUSY, State
from dht.chord.records import Record
from dht.chord.ring import SIZE, Contact, contact_of
from netstack.rpc.errors import BadRequest, brief

ID_BYTES: Final = 20
CONTACTS_MAX: Final = 256
KEY_BYTES_MAX: Final = 4096

# One record's value. Larger ones are cut into several by the client (dht/client.py).
VALUE_BYTES_MAX: Final = 256 * 1024


def pack_id(identifier: int) -> bytes:
    """20 bytes."""
    return identifier.to_bytes(ID_BYTES, "big")


def read_id(value: Any) -> int:
    """An identifier; raises BadRequest."""
    if type(value) is not bytes or len(value) != ID_BYTES:
        raise BadRequest(f"an identifier has {ID_BYTES} bytes, not {brief(value)}")
    return int.from_bytes(value, "big")


def pack_contact(contact: Contact | None) -> list[Any] | None:
    """nil for nobody and for placeholders."""
    return None if contact is None or not contact.real else list(contact[1:])


def read_contact(value: Any) -> Contact:
    """A contact with a computed identifier; raises BadRequest."""
    try:
        name, host, port, index = value
    except (TypeError, ValueError):
        raise BadRequest(f"a contact has four fields, not {brief(value)}") from None
    if type(name) is not str or type(host) is not str or not 0 < len(name) <= 64:
        raise BadRequest(f"no contact: {brief(value)}")
    if type(port) is not int or type(index) is not int or not 0 < port < 65_536:
        raise BadRequest(f"no contact: {brief(value)}")
    if not 0 <= index < 4096 or len(host) > 255:
        raise BadRequest(f"no contact: {brief(value)}")
    return contact_of(name, host, port, index)


def read_contacts(values: Any) -> list[Contact]:
    """A list of them, placeholders left out."""
    if type(values) is not list or len(values) > CONTACTS_MAX:
        raise BadRequest(f"no list of contacts: {brief(values)}")
    return [read_contact(value) for value in values if value is not None]


def pack_state(state: Any) -> Any:
    """The answer to STATE."""
    if not isinstance(state, State):
        return BUSY
    return [pack_contact(state.pred), [pack_contact(c) for c in state.succ]]


def read_state(value: Any) -> Any:
    """A State, its list padded again; or BUSY."""
    if value == BUSY:
        return BUSY
    if type(value) is not list or len(value) != 2 or type(value[1]) is not list:
        raise BadRequest(f"no state: {brief(value)}")
    pred = None if value[0] is None else read_contact(value[0])
    succ: list[Contact] = []
    for item in value[1][:CONTACTS_MAX]:
        last = succ[-1].id if succ else 0
        succ.append(Contact((last + 1) % SIZE) if item is None else read_contact(item))
    return State(pred, tuple(succ))


def pack_route(route: Route) -> list[Any]:
    """The answer to STEP."""
    beyond = [pack_contact(c) for c in route.beyond]
    contacts = [pack_contact(c) for c in route.contacts if c.real]
    return [route.final, contacts, beyond, pack_contact(route.pred)]


def read_route(value: Any) -> Route:
    """A Route; raises BadRequest."""
    if type(value) is not list or len(value) != 4 or type(value[0]) is not bool:
        raise BadRequest(f"no route: {brief(value)}")
    contacts, beyond = (tuple(read_contacts(part)) for part in value[1:3])
    if value[0] and not contacts:
        raise BadRequest("a route that ends at nobody")
    return Route(value[0], contacts, beyond, None if value[3] is None else read_contact(value[3]))


def read_record(value: Any) -> Record:
    """A record; raises BadRequest."""
    try:
        record = Record(*value)
    except TypeError:
        raise BadRequest(f"no record: {brief(value)}") from None
    read_key(record.key)
    if record.value is not None:
        read_value(record.value)
    if type(record.version) is not int or record.version < 1 or type(record.tag) is not str:
        raise BadRequest(f"a record without a version: {brief(value)}")
    if type(record.expires) not in (int, float):
        raise BadRequest(f"a record that expires at {brief(record.expires)}")
    return record


def read_records(values: Any) -> list[Record]:
    """A list of them; raises BadRequest."""
    if type(values) is not list:
        raise BadRequest(f"no list of records: {brief(values)}")
    return [read_record(value) for value in values]


def read_key(value: Any) -> bytes:
    """A key; raises BadRequest."""
    if type(value) is not bytes or not 0 < len(value) <= KEY_BYTES_MAX:
        raise BadRequest(f"a key has 1 to {KEY_BYTES_MAX} bytes")
    return value


def read_value(value: Any) -> bytes:
    """A value; raises BadRequest."""
    if type(value) is not bytes or len(value) > VALUE_BYTES_MAX:
        raise BadRequest(f"one record's value has at most {VALUE_BYTES_MAX} bytes")
    return value


def pages(records: Iterable[Record], bytes_max: int) -> Iterable[list[Record]]:
    """The same records in messages of a bounded size; at least one in each."""
    page: list[Record] = []
    size = 0
    for record in records:
        if page and size + record.size > bytes_max:
            yield page
            page, size = [], 0
        page.append(record)
        size += record.size
    if page:
        yield page
