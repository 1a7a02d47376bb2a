"""The shapes of pgsql_table(5) files that people have (facts: peers.md D1, postfix.md 3), by database."""

from __future__ import annotations

_ALIAS_DOMAIN = "FROM alias,alias_domain WHERE alias_domain.alias_domain = '%d'"
_ACTIVE = "AND alias.active='t' AND alias_domain.active='t'"

POSTFIXADMIN = {
    "domains": "query = SELECT domain FROM domain WHERE domain='%s' and backupmx = false and active = true",
    "domains_not_like": "query = SELECT domain FROM domain WHERE domain='%s' AND active "
    "AND NOT (transport LIKE 'smtp%%' OR transport LIKE 'relay%%')",
    "alias": "query = SELECT goto FROM alias WHERE address='%s' AND active = true",
    "alias_domain": f"query = SELECT goto {_ALIAS_DOMAIN} and alias.address = '%u' || '@' || "
    f"alias_domain.target_domain {_ACTIVE}",
    "alias_domain_catchall": f"query = SELECT goto {_ALIAS_DOMAIN} and alias.address = '@' || "
    f"alias_domain.target_domain {_ACTIVE}",
    "mailbox": "query = SELECT maildir FROM mailbox WHERE username='%s' AND active = true\n"
    "#expansion_limit = 1\n",
    "transport": "query = SELECT REPLACE(transport, 'virtual', ':') AS transport FROM domain "
    "WHERE domain='%s' AND active = '1'",
    "quota": "query = SELECT quota FROM mailbox WHERE username='%s'",
    "vimbadmin": "table = mailbox\nselect_field = maildir\nwhere_field = username",
    "vimbadmin_more": "table = alias\nselect_field = goto, active\nwhere_field = address\n"
    "additional_conditions = and active = '1' ORDER BY 1",
}

_FORWARD = "SELECT forwardings.forwarding FROM forwardings,domain"
_FORWARD_ALIAS = "SELECT forwardings.forwarding FROM forwardings,alias_domain,domain WHERE"
_OF_ACTIVE = "AND forwardings.domain=domain.domain AND forwardings.active=1 AND domain.active=1"

IREDMAIL = {
    "domains": "query = (SELECT domain FROM domain WHERE domain='%s' AND backupmx=0 AND active=1 LIMIT 1)"
    " UNION (SELECT alias_domain.alias_domain FROM alias_domain,domain WHERE "
    "alias_domain.alias_domain='%s' AND alias_domain.active=1 AND "
    "alias_domain.target_domain=domain.domain AND domain.active=1 LIMIT 1)",
    "alias": f"query = {_FORWARD} WHERE forwardings.address='%s' {_OF_ACTIVE}",
    "alias_domain": f"query = {_FORWARD_ALIAS} alias_domain.alias_domain='%d' AND "
    f"forwardings.address=('%u' || '@' || alias_domain.target_domain) {_OF_ACTIVE}",
    "catchall": f"query = {_FORWARD} WHERE forwardings.address='%d' AND '%u' NOT LIKE '%%+%%' {_OF_ACTIVE}",
    "alias_domain_catchall": f"query = {_FORWARD_ALIAS} alias_domain.alias_domain='%d' AND "
    f"forwardings.address=alias_domain.target_domain {_OF_ACTIVE}",
    "mailbox": "query = SELECT (mailbox.storagenode || '/' || mailbox.maildir || '/Maildir/') FROM "
    "mailbox,domain WHERE mailbox.username='%s' AND mailbox.active=1 AND mailbox.domain=domain.domain",
    "login": "query = SELECT mailbox.username FROM mailbox,domain WHERE mailbox.username='%s' AND "
    "mailbox.domain='%d' AND mailbox.enablesmtp=1 AND mailbox.domain=domain.domain AND domain.active=1",
    "bcc": "query = SELECT bcc_address FROM recipient_bcc_user WHERE recipient_bcc_user.username='%s' "
    "AND recipient_bcc_user.domain='%d' AND active=1",
    "relayhost": "query = SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1",
    "transport_user": "query = SELECT transport FROM mailbox WHERE username='%s' AND domain='%d' "
    "AND transport<>'' AND active=1 LIMIT 1",
}

MAILCOW = {
    "trailing_semicolon": "query = SELECT goto FROM alias WHERE address='%s' AND (active='1' OR active='2');",
    "union": "query = SELECT alias_domain from alias_domain WHERE alias_domain='%s' AND active='1' UNION "
    "SELECT domain FROM domain WHERE domain='%s' AND active = '1'",
    "longer_literal": "query = SELECT CONCAT(prefix, '%d/%u/') FROM mailbox WHERE username='%s' AND active=1",
    "sender_acl": "query = SELECT goto FROM alias WHERE id IN (SELECT COALESCE((SELECT min(id) FROM alias "
    "WHERE address='%s' AND (active='1' OR active='2')), (SELECT min(id) FROM alias WHERE address='@%d' AND "
    "active='1'))) UNION SELECT logged_in_as FROM sender_acl WHERE send_as='@%d' OR send_as='%s' OR "
    "send_as='*' UNION SELECT username FROM mailbox, alias_domain WHERE alias_domain.alias_domain = '%d' "
    "AND mailbox.username = CONCAT('%u', '@', alias_domain.target_domain) ORDER BY 1",
    "case": "query = SELECT DISTINCT CASE WHEN '%d' IN (SELECT domain FROM domain) THEN '%s' "
    "ELSE (SELECT min(goto) FROM alias WHERE address = '@%d') END AS result;",
    "regexp_left": "query = SELECT goto FROM alias WHERE '%s' ~ ('^' || replace(domain, '.', '[.]')) "
    "ORDER BY id LIMIT 2",
    "like_left": "query = SELECT send_as FROM sender_acl WHERE '%s' LIKE '%%' || send_as",
    "like_right": "query = SELECT address FROM alias WHERE address LIKE '%u%%' ORDER BY id LIMIT 4",
    "function": "select_function = route",
    "function_of_rows": "query = SELECT several('%s')",
    "function_of_columns": "select_function = * FROM several",
    "function_void": "select_function = nothing",
    "function_null": "select_function = no_value",
    "overloaded": "select_function = over",
    "wants_int": "query = SELECT narrow('%u')",
    "int_cast": "query = SELECT '%s'::int",
    "text_cast": "query = SELECT goto FROM alias WHERE address = '%u'::text || '@' || CAST('%d' AS varchar)",
    "typed_literal": "query = SELECT date '%s'",
    "concat": "query = SELECT concat('%u', '|', '%d', NULL)",
    "format": "query = SELECT format('%%s is %%L', '%u', '%s')",
    "escape_string": "query = SELECT E'%d\\t''\\x41\\u0042\\'%u\\\\' WHERE '%u' !~ '\\\\'",
    "select_list": "query = SELECT '%u', '%d', '%s', 'it''s ''%u''', length('%s')",
    "in_list": "query = SELECT goto FROM alias WHERE address IN ('%s', '@%d', '%u') ORDER BY id",
    "labels": "query = SELECT '%1/%2/%3' || ':%D:%U:%S:%%1'",
    "with": "query = WITH k AS (SELECT '%s' AS k) SELECT goto FROM alias JOIN k ON address = k ORDER BY id",
    "values": "query = VALUES ('%u'), ('%d'), (NULL), ('')",
    "is_null": "query = SELECT 'yes' WHERE '%s' IS NOT NULL AND nullif('%u', 'user1') IS NULL",
    "comments": "query = SELECT goto /* of %s, '%u' /* nested */ */ FROM alias WHERE address = '%s' -- %d '",
    "many_rows": "query = SELECT address, goto FROM alias WHERE domain = '%d' ORDER BY id",
    "update": "query = UPDATE alias SET active = active WHERE address = '%s'",
    "returning": "query = UPDATE alias SET active = active WHERE address = '%s' RETURNING goto, id",
    "row": "query = SELECT ROW(address, active, goto) FROM alias WHERE address = '%s' ORDER BY id",
    "whole_row": "query = SELECT alias FROM alias WHERE address = '%s' ORDER BY id",
    "aggregate": "query = SELECT count(*), array_agg(id ORDER BY id) FROM alias WHERE address = '%s'",
    "same_names": "query = SELECT goto, goto, goto FROM alias WHERE address = '%s' ORDER BY id",
    "limit": "query = SELECT goto FROM alias WHERE domain = '%d' ORDER BY id\nexpansion_limit = 3",
    "limit_fits": "query = SELECT goto FROM alias WHERE address = '%s'\nexpansion_limit = 1",
    "no_placeholder": "query = SELECT 'always'",
}

_GOTO = "query = SELECT goto FROM alias WHERE address = '%s' ORDER BY id\n"

RESULTS = {
    f"result_{name}": f"{_GOTO}result_format = {result_format}"
    for name, result_format in {
        "s": "smtp:[%s]",
        "u": "%u",
        "d": "%d",
        "ud": "%u at %d",
        "key_s": "%S",
        "key_u": "%U->%s",
        "key_d": "%D",
        "labels": "%1.%2",
        "nine": "%9%8%7%6%5%4%3%2%1",
        "percent": "100%% %%s %s",
        "constant": "OK",
        "all": "%s %u %d %S %U %D %1 %%",
        "blanks": "a  b\t%s   ",
        "quotes": "\"'%s'\"",
    }.items()
}
