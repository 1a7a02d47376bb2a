"""What a service of master.cf with `-o` of its own reads otherwise than main.cf says.

`-o aliases=pgsql:x` changes every parameter that names $aliases, and `-o recipient_delimiter=-` every
search, while a table of mailmaps answers what main.cf's value answered. So what the service has in force is
compared before and after, and what would be another table is written into the service as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mailmaps import postconf
from mailmaps.migration import words
from mailmaps.migration.configuration import Configuration
from mailmaps.migration.plan import Change, Plan
from mailmaps.migration.readers import ASK_NOTHING, FOLLOWERS, RESTRICTIONS, asks_bare_local_parts
from mailmaps.postconf import Override


def kept(configuration: Configuration, plan: Plan) -> list[Change]:
    """What has to be written into services, so that they go on asking PostgreSQL for it."""
    found = []
    planned = {(one.service, one.parameter) for one in plan.changes}
    for service, before in configuration.in_force.items():
        if configuration.services[service].program in ASK_NOTHING:
            continue
        written = {one.parameter: one.value for one in configuration.overrides_of(service)}
        after = _in_force_then(configuration, plan, service)
        for name in differing(configuration, plan, service, after):
            if (service, name) not in planned:
                old = ",".join(words.texts(before[name]))
                why = _why(configuration, service, name)
                why += OWN if words.mentions_pgsql(old) else WITHOUT
                found.append(Change(name, service, written.get(name), old, why))
    return found


def differing(
    configuration: Configuration, plan: Plan, service: str, after: Mapping[str, str]
) -> Iterator[str]:
    """The parameters that lead this service ("": main.cf alone) to other answers after the switch.

    `after` is what is in force then. A table of mailmaps stands for its sources where it is searched as
    this parameter is; in a service with other rules for that search it stands for nothing.
    """
    before = configuration.in_force.get(service, configuration.expanded)
    for name, value in before.items():
        if not configuration.reads(name):
            continue
        then = words.texts(after.get(name, ""))
        if not words.mentions_pgsql(value) and not any(text in plan.endpoints for text in then):
            continue
        if list(map(_bare, words.texts(value))) != list(_sources(configuration, plan, service, name, then)):
            yield name


def searched_otherwise(configuration: Configuration, service: str, search: str) -> str:
    """Why no table with the search of this parameter can be right for this service; empty where one can."""
    return _said(configuration, service, _exceptions(configuration, service, search))


def _said(configuration: Configuration, service: str, exceptions: list[str]) -> str:
    values = configuration.in_force.get(service, configuration.expanded)
    found = ", ".join(f"{name} = {values.get(name, '')}".strip() for name in exceptions)
    return f"this service searches otherwise than main.cf says ({found})" if found else ""


def _in_force_then(configuration: Configuration, plan: Plan, service: str) -> dict[str, str]:
    values = {one.parameter: one.new for one in plan.changes if not one.service}
    values |= {one.parameter: one.value for one in configuration.overrides_of(service)}
    values |= {one.parameter: one.new for one in plan.changes if one.service == service}
    local = [Override(service, name, value) for name, value in values.items()]
    return postconf.parameters(configuration.directory, all_of_them=True, expanded=True, local=local)


def _sources(
    configuration: Configuration, plan: Plan, service: str, name: str, texts: tuple[str, ...]
) -> Iterator[str]:
    """The words with what each table of mailmaps is made of in its place."""
    for text in texts:
        table = plan.endpoints.get(text)
        same_search = table is not None and (
            table.parameter in (name, FOLLOWERS.get(name))
            or name in RESTRICTIONS
            or name in configuration.classes
        )
        if table is None or not same_search or _exceptions(configuration, service, table.parameter):
            yield _bare(text)
        else:
            yield from table.sources


def _exceptions(configuration: Configuration, service: str, search: str) -> list[str]:
    """The parameters by which this service searches a table otherwise than main.cf says."""
    found = configuration.exceptions(service)
    if found and not asks_bare_local_parts(search):
        found = [name for name in found if name not in DECIDE_BARE_LOCAL_PARTS]
    return found


DECIDE_BARE_LOCAL_PARTS = frozenset({"mydestination", "myorigin", "inet_interfaces", "proxy_interfaces"})


def _bare(text: str) -> str:
    return text.removeprefix("proxy:") if words.is_pgsql(text) else text


def _why(configuration: Configuration, service: str, name: str) -> str:
    named = configuration.references(f"${name}") - {name}
    own = [one.parameter for one in configuration.overrides_of(service)]
    options = ", ".join(f"-o {one}" for one in own if one in named) or "by its -o"
    reason = _said(configuration, service, configuration.exceptions(service))
    if not reason or options != "by its -o":
        reason = f"this service reads it otherwise ({options})"
    return reason


OWN = ", so it goes on asking PostgreSQL itself"
WITHOUT = ", without PostgreSQL, and keeps what it reads"
