-- One view for each table that Postfix asks. The contract (docs/schema.md): `key` folded and in external
-- form (@domain for a catch-all), `value` one target a row, value NULL = the key is known and answers
-- nothing; where a key has both kinds of rows, the ones with a value count.
-- Asked as WHERE key = ANY (...): each branch must find its rows by an index on the folded column.

CREATE VIEW mailmaps.virtual_mailbox_domains AS
   -- `*` here would take all outgoing mail, `.example.com` the mail of its subdomains.
   SELECT mailmaps.fold(domain) COLLATE "C" AS key, nullif(transport, '' COLLATE "C") AS value
   FROM public.domains
   WHERE mailmaps.domain_problem(domain) IS NULL AND left(domain, 1) <> '.' COLLATE "C"
   UNION ALL
   SELECT mailmaps.fold(a.domain) COLLATE "C", nullif(d.transport, '' COLLATE "C")
   FROM mailmaps.domain_aliases a
   JOIN public.domains d ON d.domain = a.target
   WHERE mailmaps.domain_problem(d.domain) IS NULL AND left(d.domain, 1) <> '.' COLLATE "C" AND NOT EXISTS (
      SELECT FROM public.domains o
      WHERE mailmaps.fold(o.domain) COLLATE "C" = mailmaps.fold(a.domain) COLLATE "C");

CREATE VIEW mailmaps.relay_domains AS
   SELECT mailmaps.fold(r.domain) COLLATE "C" AS key, r.domain AS value
   FROM mailmaps.relays r
   WHERE NOT EXISTS (
      SELECT FROM mailmaps.our_domains o WHERE o.domain = mailmaps.fold(r.domain) COLLATE "C");

CREATE VIEW mailmaps.relay_recipient_maps AS
   SELECT mailmaps.fold(address) COLLATE "C" AS key, 'OK'::text AS value FROM mailmaps.relay_recipients;

CREATE VIEW mailmaps.transport_maps AS
   SELECT key, value FROM mailmaps.virtual_mailbox_domains
   UNION ALL
   SELECT mailmaps.fold(r.domain) COLLATE "C", r.transport
   FROM mailmaps.relays r
   WHERE NOT EXISTS (
      SELECT FROM mailmaps.our_domains o WHERE o.domain = mailmaps.fold(r.domain) COLLATE "C");

CREATE VIEW mailmaps.virtual_alias_maps AS
   -- Addresses of accounts. The entry of the email itself keeps a catch-all from eating the mailbox.
   SELECT key, CASE WHEN receives THEN email END AS value FROM mailmaps.receiving_addresses
   UNION ALL
   SELECT key, CASE WHEN live THEN email END FROM mailmaps.unlisted_emails
   UNION ALL
   -- Forwards; beside an address of an account they leave a copy there. An inactive account forwards nothing.
   SELECT f.key, CASE
      WHEN NOT coalesce(l.live, a.live) THEN NULL
      WHEN t.receives OR d.domain IS NULL AND r.domain IS NULL THEN f.target
      WHEN mailmaps.can_receive(f.target_key) THEN f.target
   END
   FROM mailmaps.forwards f
   LEFT JOIN mailmaps.listed_addresses l ON l.key = f.key
   LEFT JOIN mailmaps.accounts a ON a.email_key = f.key
   LEFT JOIN mailmaps.receiving_addresses t ON t.key = f.target_key
   LEFT JOIN public.domains d
      ON mailmaps.fold(d.domain) COLLATE "C" = mailmaps.domain_of(f.target_key)
   LEFT JOIN mailmaps.domain_aliases r
      ON mailmaps.fold(r.domain) COLLATE "C" = mailmaps.domain_of(f.target_key)
   UNION ALL
   -- Domain aliases go to the same address of their target.
   SELECT k.key, CASE
      WHEN t.receives THEN k.target_key
      WHEN NOT t.live THEN NULL
      WHEN mailmaps.can_receive(k.target_key) THEN k.target_key
   END
   FROM mailmaps.aliased_keys k
   LEFT JOIN mailmaps.receiving_addresses t ON t.key = k.target_key;

CREATE VIEW mailmaps.virtual_mailbox_maps AS
   SELECT key, CASE WHEN live THEN mailbox || '/' END AS value FROM mailmaps.owned_addresses;

CREATE VIEW mailmaps.virtual_uid_maps AS
   SELECT key, CASE WHEN live THEN uid::text END AS value FROM mailmaps.owned_addresses;

CREATE VIEW mailmaps.virtual_gid_maps AS
   SELECT key, CASE WHEN live THEN gid::text END AS value FROM mailmaps.owned_addresses;

-- Keys of domain aliases that no account has as its own.
CREATE VIEW mailmaps.inherited_keys AS
   SELECT d.key, d.target_key
   FROM mailmaps.domain_alias_keys d
   WHERE NOT EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = d.key)
     AND NOT EXISTS (SELECT FROM public.user_accounts a WHERE mailmaps.fold(a.email) COLLATE "C" = d.key);

-- Owners. An address listed in user_addresses belongs to whom it is listed for, and to nobody who merely has
-- it as his email. An inactive account's addresses stay known, so that nobody else may send as them;
-- '!inactive' can be no username.
CREATE VIEW mailmaps.smtpd_sender_login_maps AS
   SELECT mailmaps.fold(u.alias) COLLATE "C" AS key,
          CASE WHEN a.live THEN a.username ELSE '!inactive' END AS value
   FROM public.user_addresses u
   JOIN mailmaps.accounts a ON a.username = u.username
   UNION ALL
   SELECT a.email_key, CASE WHEN a.live THEN a.username ELSE '!inactive' END
   FROM mailmaps.accounts a
   WHERE NOT EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = a.email_key)
   UNION ALL
   SELECT k.key, CASE WHEN a.live THEN a.username ELSE '!inactive' END
   FROM mailmaps.inherited_keys k
   JOIN public.user_addresses u ON mailmaps.fold(u.alias) COLLATE "C" = k.target_key
   JOIN mailmaps.accounts a ON a.username = u.username
   UNION ALL
   SELECT k.key, CASE WHEN a.live THEN a.username ELSE '!inactive' END
   FROM mailmaps.inherited_keys k
   JOIN mailmaps.accounts a ON a.email_key = k.target_key
   WHERE NOT EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = k.target_key);
