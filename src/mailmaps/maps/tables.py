"""The tables: one per Postfix parameter, each with the search order that Postfix gave it."""

from __future__ import annotations

from dataclasses import dataclass

from mailmaps.maps import search


@dataclass(frozen=True, slots=True)
class TableKind:
    """What is fixed about a table, whatever answers it.

    `tcp_port` is the default port of its tcp_table endpoint. `propagates`: the extension that the search
    cut off goes back into the results (propagate_unmatched_extensions). `bare_keys` is false where the
    builtin source knows no key without `@` (else an unset virtual_alias_domains would make every domain
    a virtual alias domain). `union` merges the answers of all sources. `held` tables are kept in memory
    whole, because smtpd(8) remembers a resolver failure until it exits.
    """

    name: str
    walk: search.Walk
    tcp_port: int
    propagates: bool = False
    bare_keys: bool = True
    union: bool = False
    held: bool = False


KINDS: dict[str, TableKind] = {
    kind.name: kind
    for kind in (
        TableKind("transport_maps", search.transport_walk, 17011, held=True),
        TableKind("virtual_mailbox_domains", search.domain_walk, 17012, held=True),
        TableKind(
            "virtual_alias_maps",
            search.external_address_walk,
            17013,
            propagates=True,
            bare_keys=False,
        ),
        TableKind("virtual_mailbox_maps", search.address_walk, 17014),
        TableKind("virtual_uid_maps", search.address_walk, 17015),
        TableKind("virtual_gid_maps", search.address_walk, 17016),
        TableKind("smtpd_sender_login_maps", search.address_walk, 17017, union=True),
        TableKind("relay_domains", search.domain_list_walk, 17031, held=True),
        TableKind("relay_recipient_maps", search.address_walk, 17032),
    )
}
