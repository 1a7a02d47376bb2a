-- Logins: what an account may do, the names it logs in with, and the owners of sender addresses as the login
-- spells them.

-- What an account may do; without a row: everything. `receive` off stops its mail as `active` does, but it
-- stays the owner of its addresses.
CREATE TABLE mailmaps.rights (
   username text PRIMARY KEY REFERENCES public.user_accounts (username) ON UPDATE CASCADE ON DELETE CASCADE,
   imap boolean NOT NULL DEFAULT true,
   pop3 boolean NOT NULL DEFAULT true,
   smtp boolean NOT NULL DEFAULT true,
   sieve boolean NOT NULL DEFAULT true,
   receive boolean NOT NULL DEFAULT true
);

-- Behind saslauthd the login that Postfix knows is what the user typed, with smtpd_sasl_local_domain behind it.
ALTER TABLE mailmaps.settings
   ADD COLUMN login_realm text NOT NULL DEFAULT '',
   ADD COLUMN login_addresses boolean NOT NULL DEFAULT false;

-- Not unique: the how-to's usernames may differ in case alone.
CREATE INDEX user_accounts_username_folded ON public.user_accounts ((mailmaps.fold(username) COLLATE "C"));

-- `live`: its mail arrives, so `receive` counts; `active`: as it says, where the settings honour it. All views
-- of 0007 and 0008 mean `live`, except for the owners of sender addresses.
CREATE OR REPLACE VIEW mailmaps.accounts AS
   SELECT a.username, a.uid, a.gid, a.email, a.mailbox,
          mailmaps.fold(a.email) COLLATE "C" AS email_key,
          (NOT coalesce((SELECT honour_active FROM mailmaps.settings), false)
             OR a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y'))
             AND NOT EXISTS (SELECT FROM mailmaps.rights r WHERE r.username = a.username AND NOT r.receive)
             AS live,
          NOT coalesce((SELECT honour_active FROM mailmaps.settings), false)
             OR a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS active
   FROM public.user_accounts a;

-- The addresses that one can log in with, each with the account that has it (0007, owned_addresses), those of
-- domain aliases among them. No catch-alls, and no email without @.
CREATE VIEW mailmaps.address_logins AS
   SELECT mailmaps.fold(u.alias) COLLATE "C" AS login, u.username
   FROM public.user_addresses u
   WHERE strpos(mailmaps.fold(u.alias) COLLATE "C", '@') > 1
   UNION ALL
   SELECT e.key, e.username
   FROM mailmaps.unlisted_emails e
   WHERE strpos(e.key, '@') > 1
   UNION ALL
   SELECT k.key, u.username
   FROM mailmaps.inherited_keys k
   JOIN public.user_addresses u ON mailmaps.fold(u.alias) COLLATE "C" = k.target_key
   WHERE strpos(k.key, '@') > 1
   UNION ALL
   SELECT k.key, e.username
   FROM mailmaps.inherited_keys k
   JOIN mailmaps.unlisted_emails e ON e.key = k.target_key
   WHERE strpos(k.key, '@') > 1;

-- Every account with its rights.
CREATE VIEW mailmaps.login_accounts AS
   SELECT a.username, a.password, a.uid, a.gid, a.mailbox, a.quota,
          NOT coalesce((SELECT honour_active FROM mailmaps.settings), false)
             OR a.active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS active,
          coalesce(r.imap, true) AS imap, coalesce(r.pop3, true) AS pop3, coalesce(r.smtp, true) AS smtp,
          coalesce(r.sieve, true) AS sieve, coalesce(r.receive, true) AS receive
   FROM public.user_accounts a
   LEFT JOIN mailmaps.rights r ON r.username = a.username;

-- One row for each login and account, inactive ones too. Asked as WHERE login = ANY (...). It shows password
-- hashes: the role mailauth may read it, mailreader may not (grants.sql).
CREATE VIEW mailmaps.logins AS
   SELECT mailmaps.fold(a.username) COLLATE "C" AS login, 'username'::text AS by, a.username, a.password,
          a.uid, a.gid, a.mailbox, a.quota, a.active, a.imap, a.pop3, a.smtp, a.sieve, a.receive
   FROM mailmaps.login_accounts a
   UNION ALL
   SELECT l.login, 'address'::text, a.username, a.password,
          a.uid, a.gid, a.mailbox, a.quota, a.active, a.imap, a.pop3, a.smtp, a.sieve, a.receive
   FROM mailmaps.address_logins l
   JOIN mailmaps.login_accounts a ON a.username = l.username;

-- Who owns which key; an address that user_addresses lists is of whom it is listed for, and of nobody who
-- merely has it as his email.
CREATE VIEW mailmaps.sender_owners AS
   SELECT mailmaps.fold(u.alias) COLLATE "C" AS key, a.username, a.active
   FROM public.user_addresses u
   JOIN mailmaps.accounts a ON a.username = u.username
   UNION ALL
   SELECT a.email_key, a.username, a.active
   FROM mailmaps.accounts a
   WHERE NOT EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = a.email_key)
   UNION ALL
   SELECT k.key, a.username, a.active
   FROM mailmaps.inherited_keys k
   JOIN public.user_addresses u ON mailmaps.fold(u.alias) COLLATE "C" = k.target_key
   JOIN mailmaps.accounts a ON a.username = u.username
   UNION ALL
   SELECT k.key, a.username, a.active
   FROM mailmaps.inherited_keys k
   JOIN mailmaps.accounts a ON a.email_key = k.target_key
   WHERE NOT EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = k.target_key);

-- How else a login of an account may reach Postfix. A name that is another account's username, or with the
-- realm another's address, is that account's when somebody logs in with it: listed here, it would let the one
-- send as the other. (OFFSET: the planner asks each address by index, and does not join with all.)
CREATE VIEW mailmaps.login_spellings AS
   SELECT a.username, a.username || '@' || s.login_realm AS login
   FROM mailmaps.settings s
   CROSS JOIN public.user_accounts a
   WHERE s.login_realm <> '' COLLATE "C" AND strpos(a.username COLLATE "C", '@') = 0
     AND NOT EXISTS (
         SELECT FROM public.user_accounts b
         WHERE mailmaps.fold(b.username) COLLATE "C"
             = mailmaps.fold(a.username || '@' || s.login_realm) COLLATE "C")
     AND NOT (s.login_addresses AND EXISTS (
         SELECT FROM mailmaps.address_logins l
         WHERE l.login = mailmaps.fold(a.username || '@' || s.login_realm) COLLATE "C" OFFSET 0))
   UNION ALL
   -- smtpd_sender_login_maps is a list split at blanks and commas, and quotes have a meaning there.
   SELECT l.username, l.login COLLATE "default"
   FROM mailmaps.address_logins l
   WHERE (SELECT login_addresses FROM mailmaps.settings) AND l.login !~ '[[:space:],"]'
     AND NOT EXISTS (
         SELECT FROM public.user_accounts b
         WHERE mailmaps.fold(b.username) COLLATE "C" = l.login AND b.username <> l.username);

CREATE FUNCTION mailmaps.spells_logins() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   RETURN (SELECT login_realm <> '' COLLATE "C" OR login_addresses FROM mailmaps.settings);
END
$function$;

-- Those of one account. A function, so that the view below is no larger where nothing is spelt out.
-- SECURITY DEFINER: who reads the view needs no right on the tables.
CREATE FUNCTION mailmaps.spelt_logins(account text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 3 SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off
AS $function$
BEGIN
   RETURN QUERY SELECT s.login FROM mailmaps.login_spellings s WHERE s.username = account;
END
$function$;

-- An inactive account's addresses stay known, so that nobody else may send as them; '!inactive' can be no
-- username. Where the settings have no other spelling, the second part is a filter asked once.
CREATE OR REPLACE VIEW mailmaps.smtpd_sender_login_maps AS
   SELECT o.key, v.value
   FROM mailmaps.sender_owners o
   CROSS JOIN LATERAL (
      SELECT CASE WHEN o.active THEN o.username ELSE '!inactive' END
      UNION ALL
      SELECT s.login FROM mailmaps.spelt_logins(o.username) AS s (login)
      WHERE (SELECT login_realm <> '' COLLATE "C" OR login_addresses FROM mailmaps.settings) AND o.active
   ) AS v (value);

-- Changes (0010). An account is named as '!username', folded: a change of `receive` is one at all its keys, and
-- where the logins are spelt out, so is one of its addresses, while the row that says so may be gone. Two
-- transactions do not see each other's rows, so the account itself is named, and depending_keys finds its keys.
--
-- Why it is right, beside 0010: v's owners are read from v to the account, to its row, rights and addresses,
-- to who has each of these (and username@realm), as address or as username. Who changes a username names
-- '!username', who changes an address the address and '!username' of its owner, who changes a key of a domain
-- alias that key and what it stands for. From each of them `accounts_spelling` goes back to the account. (Of
-- two accounts with one email, whether the one receives decides who has it: depending_keys goes from an account
-- to its email, and from there to the addresses of all accounts that have it.)

-- The keys of the accounts with these folded usernames; those of domain aliases depend on them.
CREATE FUNCTION mailmaps.keys_of_accounts(usernames text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   RETURN QUERY
      SELECT mailmaps.fold(a.email) FROM public.user_accounts a
      WHERE mailmaps.fold(a.username) COLLATE "C" = ANY (usernames)
      UNION ALL
      SELECT mailmaps.fold(u.alias)
      FROM public.user_accounts a JOIN public.user_addresses u ON u.username = a.username
      WHERE mailmaps.fold(a.username) COLLATE "C" = ANY (usernames);
END
$function$;

-- The accounts, as '!username', whose spelt logins a change at these keys may change.
CREATE FUNCTION mailmaps.accounts_spelling(changed text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   realm CONSTANT text COLLATE "C" := (SELECT '@' || mailmaps.fold(login_realm) FROM mailmaps.settings);
   names text[] COLLATE "C" := changed || ARRAY(
      SELECT substr(c.key, 2) FROM unnest(changed) AS c (key) WHERE left(c.key, 1) = '!' COLLATE "C");
BEGIN
   -- Keys of domain aliases, with what they stand for.
   names := names || ARRAY(
      SELECT d.target_key FROM mailmaps.domain_alias_keys d WHERE d.key = ANY (names)
      UNION ALL
      SELECT d.key FROM mailmaps.domain_alias_keys d WHERE d.target_key = ANY (names));
   RETURN QUERY
      SELECT '!' || mailmaps.fold(u.username) FROM public.user_addresses u
      WHERE mailmaps.fold(u.alias) COLLATE "C" = ANY (names)
      UNION
      SELECT '!' || mailmaps.fold(a.username) FROM public.user_accounts a
      WHERE mailmaps.fold(a.email) COLLATE "C" = ANY (names)
      UNION
      SELECT '!' || n.username
      FROM unnest(names) AS l (name), LATERAL (SELECT left(l.name, -char_length(realm))) AS n (username)
      WHERE realm <> '@' COLLATE "C" AND right(l.name, char_length(realm)) = realm COLLATE "C"
      LIMIT most;
END
$function$;

-- As in 0010, with accounts among the keys; in "addresses", '!username' is one.
CREATE OR REPLACE FUNCTION mailmaps.depending_keys(of text, changed text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off
AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys();
   spelt CONSTANT boolean := of = 'addresses' COLLATE "C" AND mailmaps.spells_logins();
   fresh text[] COLLATE "C" := ARRAY(
      SELECT DISTINCT c.key FROM unnest(changed) AS c (key) WHERE c.key IS NOT NULL);
   found text[] COLLATE "C" := '{}';
   rows text[] COLLATE "C";
   -- Of the fresh keys: domains that are ours or not; those and whole domains that catch-alls stand for.
   ours text[] COLLATE "C";
   caught text[] COLLATE "C";
   -- The usernames, folded, of accounts among them.
   accounts text[] COLLATE "C";
   -- Accounts whose mail goes to one of the fresh keys; with '@domain', to the same local part there.
   emails text[] COLLATE "C";
BEGIN
   IF of = 'domains' COLLATE "C" THEN
      fresh := ARRAY(
         SELECT c.key FROM unnest(fresh) AS c (key)
         UNION
         SELECT mailmaps.fold(a.domain) FROM mailmaps.domain_aliases a
         WHERE mailmaps.fold(a.target) COLLATE "C" = ANY (fresh));
   ELSIF spelt AND cardinality(fresh) <= most THEN
      fresh := ARRAY(SELECT c.key FROM unnest(fresh) AS c (key)
                     UNION SELECT d.key FROM mailmaps.accounts_spelling(fresh) AS d (key));
   END IF;
   WHILE fresh <> '{}' LOOP
      found := found || fresh;
      IF cardinality(found) > most THEN
         RETURN NULL;
      END IF;
      EXIT WHEN of <> 'addresses' COLLATE "C";
      ours := ARRAY(SELECT c.key FROM unnest(fresh) AS c (key) WHERE strpos(c.key, '@') = 0);
      IF ours <> '{}' AND mailmaps.reaches_far(ours) THEN
         RETURN NULL;
      END IF;
      caught := ours || ARRAY(
         SELECT mailmaps.domain_of(c.key) FROM unnest(fresh) AS c (key)
         WHERE mailmaps.local_of(c.key) = '' COLLATE "C");
      emails := fresh || ARRAY(SELECT DISTINCT '@' || mailmaps.domain_of(c.key) FROM unnest(fresh) AS c (key));
      rows := ARRAY(
         WITH targets AS MATERIALIZED (SELECT * FROM mailmaps.reaching_targets(fresh))
         SELECT NULL FROM targets WHERE low IS NULL
         UNION ALL
         SELECT r.key
         FROM targets t,
            LATERAL (SELECT f.key FROM mailmaps.forwards f
                     WHERE split_part(f.target_key, '@', -1) = t.domain COLLATE "C"
                       AND f.target_key >= t.low COLLATE "C" AND f.target_key < t.high COLLATE "C"
                     OFFSET 0) AS r  -- OFFSET: never as a merge with all forwards
         UNION ALL
         SELECT f.key FROM mailmaps.forwards f WHERE split_part(f.target_key, '@', -1) = ANY (caught)
         UNION ALL
         SELECT d.key FROM mailmaps.domain_alias_keys d WHERE d.target_key = ANY (fresh)
         UNION ALL
         SELECT mailmaps.fold(u.alias)
         FROM public.user_accounts a JOIN public.user_addresses u ON u.username = a.username
         WHERE mailmaps.fold(a.email) COLLATE "C" = ANY (emails)
         UNION ALL
         SELECT mailmaps.fold(u.alias)
         FROM public.user_accounts a
         JOIN public.user_addresses e ON e.username <> a.username
            AND mailmaps.fold(e.alias) COLLATE "C" = mailmaps.fold(a.email) COLLATE "C"
         JOIN public.user_addresses u ON u.username = a.username
         WHERE split_part(mailmaps.fold(a.email) COLLATE "C", '@', -1) = ANY (ours)
         LIMIT 4 * most + 1);
      accounts := ARRAY(SELECT substr(c.key, 2) FROM unnest(fresh) AS c (key) WHERE left(c.key, 1) = '!');
      IF accounts <> '{}' THEN
         rows := rows || ARRAY(SELECT k.key FROM mailmaps.keys_of_accounts(accounts) AS k (key)
                               LIMIT 4 * most + 1);
      END IF;
      IF cardinality(rows) > 4 * most OR array_position(rows, NULL) IS NOT NULL THEN
         RETURN NULL;
      END IF;
      fresh := ARRAY(SELECT DISTINCT r.key FROM unnest(rows) AS r (key) WHERE r.key <> ALL (found));
   END LOOP;
   RETURN found;
END
$function$;

-- The three of 0010 on whose tables logins rest: where these are spelt out, they name the accounts too.

CREATE OR REPLACE FUNCTION mailmaps.notify_user_addresses() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
   owners text[] := '{}';
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT mailmaps.fold(alias) FROM new_rows LIMIT most);
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT mailmaps.fold(alias) FROM old_rows LIMIT most);
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT mailmaps.fold(alias) FROM (
         (SELECT username, alias FROM old_rows EXCEPT SELECT username, alias FROM new_rows)
         UNION ALL
         (SELECT username, alias FROM new_rows EXCEPT SELECT username, alias FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   IF TG_OP <> 'TRUNCATE' AND mailmaps.spells_logins() THEN
      IF TG_OP <> 'INSERT' THEN
         owners := ARRAY(SELECT DISTINCT '!' || mailmaps.fold(username) FROM old_rows LIMIT most);
      END IF;
      IF TG_OP <> 'DELETE' THEN
         owners := owners || ARRAY(SELECT DISTINCT '!' || mailmaps.fold(username) FROM new_rows LIMIT most);
      END IF;
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses',
                                changed || CASE WHEN changed <> '{}' THEN owners END);
   RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION mailmaps.notify_user_accounts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
   usernames text[];
BEGIN
   IF TG_OP = 'INSERT' THEN
      SELECT array_agg(mailmaps.fold(c.email)), array_agg(c.username) INTO changed, usernames
         FROM (SELECT email, username FROM new_rows LIMIT most) AS c;
   ELSIF TG_OP = 'DELETE' THEN
      SELECT array_agg(mailmaps.fold(c.email)), array_agg(c.username) INTO changed, usernames
         FROM (SELECT email, username FROM old_rows LIMIT most) AS c;
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      SELECT array_agg(mailmaps.fold(l.email)), array_agg(l.username) INTO changed, usernames
         FROM (SELECT c.email, c.username FROM (
            (SELECT username, uid, gid, email, mailbox, active FROM old_rows
             EXCEPT SELECT username, uid, gid, email, mailbox, active FROM new_rows)
            UNION ALL
            (SELECT username, uid, gid, email, mailbox, active FROM new_rows
             EXCEPT SELECT username, uid, gid, email, mailbox, active FROM old_rows)) AS c LIMIT most) AS l;
   END IF;
   IF TG_OP <> 'TRUNCATE' THEN
      changed := coalesce(changed, '{}') || ARRAY(
         SELECT mailmaps.fold(u.alias) FROM public.user_addresses u
         WHERE u.username = ANY (usernames) LIMIT most);
      IF cardinality(usernames) > 0 AND mailmaps.spells_logins() THEN
         changed := changed || ARRAY(
            SELECT '!' || mailmaps.fold(n.username) FROM unnest(usernames) AS n (username));
      END IF;
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', changed);
   RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION mailmaps.notify_domain_alias_keys() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
   targets text[] := '{}';
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT key FROM new_rows LIMIT most);
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT key FROM old_rows LIMIT most);
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT key FROM (
         (SELECT key, target_key FROM old_rows EXCEPT SELECT key, target_key FROM new_rows)
         UNION ALL
         (SELECT key, target_key FROM new_rows EXCEPT SELECT key, target_key FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   IF TG_OP <> 'TRUNCATE' AND mailmaps.spells_logins() THEN
      IF TG_OP <> 'INSERT' THEN
         targets := ARRAY(SELECT DISTINCT target_key FROM old_rows LIMIT most);
      END IF;
      IF TG_OP <> 'DELETE' THEN
         targets := targets || ARRAY(SELECT DISTINCT target_key FROM new_rows LIMIT most);
      END IF;
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses',
                                changed || CASE WHEN changed <> '{}' THEN targets END);
   RETURN NULL;
END
$function$;

-- Who may not receive any more, or may again; other rights change no key.
CREATE FUNCTION mailmaps.notify_rights() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT '!' || mailmaps.fold(username) FROM new_rows WHERE NOT receive LIMIT most);
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT '!' || mailmaps.fold(username) FROM old_rows WHERE NOT receive LIMIT most);
      IF NOT EXISTS (SELECT FROM old_rows) THEN
         RETURN NULL;
      END IF;
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT '!' || mailmaps.fold(username) FROM (
         (SELECT username FROM old_rows WHERE NOT receive EXCEPT SELECT username FROM new_rows WHERE NOT receive)
         UNION ALL
         (SELECT username FROM new_rows WHERE NOT receive EXCEPT SELECT username FROM old_rows WHERE NOT receive)
      ) AS c LIMIT most);
   END IF;
   -- There were rows: the table is told in any case.
   PERFORM mailmaps.send_change('UPDATE', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', changed);
   RETURN NULL;
END
$function$;

-- As in 0010, with the new table.
CREATE OR REPLACE FUNCTION mailmaps.watch_tables() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   tab text;
   event text;
   trigger_name text;
   state text;
BEGIN
   FOREACH tab IN ARRAY ARRAY[
      'public.domains', 'public.user_accounts', 'public.user_addresses', 'mailmaps.forwards',
      'mailmaps.domain_aliases', 'mailmaps.domain_alias_keys', 'mailmaps.relays', 'mailmaps.relay_recipients',
      'mailmaps.settings', 'mailmaps.rights'] LOOP
      FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] LOOP
         trigger_name := 'mailmaps_watch_' || lower(event COLLATE "C");
         SELECT t.tgenabled INTO state FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
            WHERE t.tgrelid = tab::regclass AND t.tgname = trigger_name COLLATE "C"
              AND p.pronamespace = 'mailmaps'::regnamespace;
         IF NOT FOUND THEN  -- or it is one of `mailmaps schema watch`, which names the table alone
            EXECUTE format('CREATE OR REPLACE TRIGGER %s AFTER %s ON %s %s '
                           'FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.notify_%s()',
                           trigger_name, event, tab,
                           CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows'
                                      WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                                      WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                                      ELSE '' END,
                           split_part(tab, '.', 2));
         END IF;
         IF state IS DISTINCT FROM 'A' THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', tab, trigger_name);
         END IF;
      END LOOP;
   END LOOP;
END
$function$;
SELECT mailmaps.watch_tables();

CREATE OR REPLACE VIEW mailmaps.doubtful_rows AS
   SELECT 'domains' AS subject,
          format('"%s" %s, so it is left out', domain,
                 coalesce(mailmaps.domain_problem(domain), 'is no domain')) AS text
   FROM public.domains
   WHERE mailmaps.domain_problem(domain) IS NOT NULL OR left(domain, 1) = '.' COLLATE "C"
   UNION ALL
   SELECT 'domains', format('"%s" has an empty transport and gets no mail', domain)
   FROM public.domains WHERE transport = '' COLLATE "C"
   UNION ALL
   SELECT 'domain_aliases', format('"%s" is in domains too, and that counts', a.domain)
   FROM mailmaps.domain_aliases a
   JOIN public.domains d ON mailmaps.fold(d.domain) COLLATE "C" = mailmaps.fold(a.domain) COLLATE "C"
   UNION ALL
   SELECT 'relays', format('"%s" is in domains or domain_aliases too, and that counts', r.domain)
   FROM mailmaps.relays r
   WHERE EXISTS (SELECT FROM mailmaps.our_domains o WHERE o.domain = mailmaps.fold(r.domain) COLLATE "C")
   UNION ALL
   SELECT 'user_addresses',
          format('"%s" %s, so no lookup reaches it', alias, mailmaps.address_problem(alias))
   FROM public.user_addresses WHERE mailmaps.address_problem(alias) IS NOT NULL
   UNION ALL
   SELECT 'user_addresses', format('"%s" is in a domain that is not ours', alias)
   FROM public.user_addresses
   WHERE mailmaps.address_problem(alias) IS NULL
     AND NOT EXISTS (SELECT FROM mailmaps.our_domains o
                     WHERE o.domain = mailmaps.domain_of(mailmaps.fold(alias)) COLLATE "C")
   UNION ALL
   SELECT 'user_accounts', format('email "%s" of %s %s, so its mail goes astray', email, username,
                                  mailmaps.address_problem(email))
   FROM public.user_accounts WHERE mailmaps.address_problem(email) IS NOT NULL
   UNION ALL
   SELECT 'user_accounts', format('"%s" is the email of %s; mail goes to one of them', email_key,
                                  string_agg(username, ' and ' ORDER BY username COLLATE "C"))
   FROM mailmaps.accounts GROUP BY email_key HAVING count(*) > 1
   UNION ALL
   SELECT 'user_accounts', format('email "%s" of %s is an address of %s, who gets the mail', a.email,
                                  a.username, l.username)
   FROM mailmaps.accounts a
   JOIN mailmaps.listed_addresses l ON l.key = a.email_key AND l.username <> a.username
   UNION ALL
   SELECT 'forwards', format('"%s" to "%s" answers nothing: that domain has no catch-all; '
                             'a row in domain_aliases would make each of its addresses known', address, target)
   FROM mailmaps.forwards
   WHERE left(target_key, 1) = '@' COLLATE "C" AND NOT mailmaps.can_receive(target_key)
   UNION ALL
   SELECT 'user_accounts', format('%s is inactive, yet gets mail', username)
   FROM public.user_accounts
   WHERE active COLLATE "C" NOT IN ('1', 't', 'T', 'y', 'Y')
     AND (SELECT honour_active FROM mailmaps.settings) IS NULL
   UNION ALL
   SELECT 'user_accounts', format('usernames %s differ in case alone: only the exact spelling can log in, '
                                  'and each may send as the other',
                                  string_agg(username, ' and ' ORDER BY username COLLATE "C"))
   FROM public.user_accounts GROUP BY mailmaps.fold(username) COLLATE "C" HAVING count(*) > 1
   UNION ALL
   SELECT 'user_accounts', format('username "%s" is an address of %s; who logs in with it is %s: '
                                  'the username counts', a.username, l.username, a.username)
   FROM public.user_accounts a
   JOIN mailmaps.address_logins l
     ON l.login = mailmaps.fold(a.username) COLLATE "C" AND l.username <> a.username
   UNION ALL
   SELECT 'user_accounts', format('"%s@%s" is an address of %s, so %s cannot log in behind saslauthd '
                                  'with the bare username', a.username, s.login_realm, l.username, a.username)
   FROM mailmaps.settings s
   CROSS JOIN public.user_accounts a
   JOIN mailmaps.address_logins l
     ON l.login = mailmaps.fold(a.username || '@' || s.login_realm) COLLATE "C" AND l.username <> a.username
   WHERE s.login_realm <> '' COLLATE "C" AND s.login_addresses AND strpos(a.username COLLATE "C", '@') = 0;
