-- Every change is notified on channel `mailmaps` (docs/schema.md, "Changes"): which keys of the views may
-- have other rows now, as {"of": "addresses", "keys": [...]}, without keys where they would be too many; and
-- the table itself, as {"relation": "public.domains"}. Groups of views: "addresses" (aliases, mailboxes, uids,
-- gids, sender logins), "domains" (mailbox domains, transports, relay domains), "relay_recipients".
--
-- A change at one key changes the rows of other keys: a target that can receive no more takes its aliases
-- along. `depending_keys` walks from changed keys to all that may depend on them. It may name too many and
-- never one too few: what is not notified keeps its old answer, and that is a bounce.
--
-- Why it is right: let the rows of key v differ between two states. v's rows are read by a walk over keys
-- (0007, 0008). The first key on v's walk whose facts changed is one of the changed keys, and the way from v
-- to it is the same in both states, so that it is found backwards in the later one. Two transactions at once
-- do not see each other's rows, so whoever is notified calls `depending_keys` once more before reading.

-- For targets in one domain, and in it those that begin like an address with an extension.
CREATE INDEX forwards_target_domain
   ON mailmaps.forwards ((split_part(target_key, '@', -1)), target_key);
-- For a domain that becomes ours, or is no more, while accounts have their email there.
CREATE INDEX user_accounts_email_domain
   ON public.user_accounts ((split_part(mailmaps.fold(email) COLLATE "C", '@', -1)));

-- More keys than these are not named one by one, neither for one statement...
CREATE FUNCTION mailmaps.most_keys() RETURNS integer IMMUTABLE PARALLEL SAFE RETURN 500;
-- ...nor, of one group, for one transaction.
CREATE FUNCTION mailmaps.most_keys_together() RETURNS integer IMMUTABLE PARALLEL SAFE RETURN 5000;

-- The targets that reach one of these keys, as ranges of forwards.target_key: the key itself, the key with
-- an extension, and both in every domain that falls to the key's domain by catch-alls (x@d is x@e where @d
-- goes to @e). One row of NULL: too many to say.
CREATE FUNCTION mailmaps.reaching_targets(changed text[]) RETURNS TABLE (domain text, low text, high text)
LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $function$
DECLARE
   most CONSTANT integer := 4 * mailmaps.most_keys();
   delimiters CONSTANT text COLLATE "C" := (SELECT recipient_delimiter FROM mailmaps.settings);
   -- Parameters have the collation of the call.
   keys CONSTANT text[] COLLATE "C" := changed;
   number bigint;
   origins text[] COLLATE "C";
   fallen text[] COLLATE "C";
BEGIN
   -- Pairs: a domain of the keys, and one that falls to it and has targets in it (most have none).
   SELECT count(*), array_agg(f.origin) FILTER (WHERE f.asked), array_agg(f.domain) FILTER (WHERE f.asked)
      INTO number, origins, fallen
      FROM (
         WITH RECURSIVE falling (origin, domain) AS (
            SELECT DISTINCT mailmaps.domain_of(c.key), mailmaps.domain_of(c.key)
            FROM unnest(keys) AS c (key) WHERE mailmaps.local_of(c.key) <> '' COLLATE "C"
            UNION
            SELECT f.origin, mailmaps.domain_of(n.key)
            FROM falling f,
               LATERAL (
                  SELECT w.key FROM mailmaps.forwards w
                  WHERE split_part(w.target_key, '@', -1) = f.domain COLLATE "C"
                    AND w.target_key = ('@' || f.domain) COLLATE "C"
                  UNION ALL
                  SELECT d.key FROM mailmaps.domain_alias_keys d
                  WHERE d.target_key = ('@' || f.domain) COLLATE "C"
               ) AS n (key)
         )
         SELECT falling.origin, falling.domain, falling.origin <> falling.domain AND (
               SELECT true FROM mailmaps.forwards w
               WHERE split_part(w.target_key, '@', -1) = falling.domain COLLATE "C"
                 AND w.target_key <> ('@' || falling.domain) COLLATE "C"
               LIMIT 1) AS asked
         FROM falling LIMIT most + 1
      ) AS f;
   IF number > most OR coalesce(cardinality(fallen), 0)::bigint * cardinality(keys) > 2 * most
      OR delimiters ~ '[^\u0001-\u007e]' THEN
      RETURN QUERY SELECT NULL, NULL, NULL;
      RETURN;
   END IF;
   RETURN QUERY
      WITH addresses AS MATERIALIZED (
         SELECT mailmaps.local_of(c.key) AS local, mailmaps.domain_of(c.key) AS domain
         FROM unnest(keys) AS c (key) WHERE strpos(c.key, '@') > 0
         UNION
         SELECT mailmaps.local_of(c.key), f.domain
         FROM unnest(origins, fallen) AS f (origin, domain)
         JOIN unnest(keys) AS c (key) ON mailmaps.domain_of(c.key) = f.origin
         WHERE mailmaps.local_of(c.key) <> '' COLLATE "C"
      )
      SELECT a.domain, a.local || '@' || a.domain, a.local || '@' || a.domain || chr(1)
      FROM addresses a
      UNION ALL
      SELECT a.domain, b.beginning, left(b.beginning, -1) || chr(ascii(e.delimiter) + 1)
      FROM addresses a,
         string_to_table(delimiters, NULL) AS e (delimiter),
         LATERAL (SELECT mailmaps.unquoted(a.local) || e.delimiter) AS i (internal),
         -- Quoted as well: what comes after the delimiter may need it.
         LATERAL (VALUES
            (i.internal),
            ('"' || regexp_replace(i.internal COLLATE "C", '(["\\\r])', '\\\1', 'g'))) AS b (beginning)
      WHERE a.local <> '' COLLATE "C";
END
$function$;

-- The keys of a group of views whose rows may be others after a change at these keys, these among them; in
-- "addresses", a key without @ is a domain that became ours or is no more. NULL: too many to name.
-- SECURITY DEFINER: who is notified needs no right on the tables.
CREATE FUNCTION mailmaps.depending_keys(of text, changed text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off
AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys();
   fresh text[] COLLATE "C" := ARRAY(
      SELECT DISTINCT c.key FROM unnest(changed) AS c (key) WHERE c.key IS NOT NULL);
   found text[] COLLATE "C" := '{}';
   rows text[] COLLATE "C";
   -- Of the fresh keys: domains that are ours or not; those and whole domains that catch-alls stand for.
   ours text[] COLLATE "C";
   caught text[] COLLATE "C";
   -- Accounts whose mail goes to one of the fresh keys; with '@domain', to the same local part there.
   emails text[] COLLATE "C";
BEGIN
   IF of = 'domains' COLLATE "C" THEN
      fresh := ARRAY(
         SELECT c.key FROM unnest(fresh) AS c (key)
         UNION
         SELECT mailmaps.fold(a.domain) FROM mailmaps.domain_aliases a
         WHERE mailmaps.fold(a.target) COLLATE "C" = ANY (fresh));
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
      IF cardinality(rows) > 4 * most OR array_position(rows, NULL) IS NOT NULL THEN
         RETURN NULL;
      END IF;
      fresh := ARRAY(SELECT DISTINCT r.key FROM unnest(rows) AS r (key) WHERE r.key <> ALL (found));
   END LOOP;
   RETURN found;
END
$function$;

-- Whether too many accounts have their email in these domains to look for those that others have listed; or
-- a domain alias leads there, whose keys are as many as the domain has.
CREATE FUNCTION mailmaps.reaches_far(domains text[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off
AS $function$
BEGIN
   RETURN EXISTS (
         SELECT FROM mailmaps.domain_aliases a WHERE mailmaps.fold(a.target) COLLATE "C" = ANY (domains))
      OR mailmaps.most_keys_together() < (
         SELECT count(*) FROM (
            SELECT FROM public.user_accounts a
            WHERE split_part(mailmaps.fold(a.email) COLLATE "C", '@', -1) = ANY (domains)
            LIMIT mailmaps.most_keys_together() + 1) AS l);
END
$function$;

-- Notifies a change at these keys of a group; NULL: anywhere in it. A transaction that has named most keys
-- together, or the group, names nothing more of it. How far it is stands in a setting of the transaction:
-- "transaction:keys", taken back with a savepoint as the notifications are.
CREATE FUNCTION mailmaps.send_keys(of text, changed text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   setting CONSTANT text := 'mailmaps.sent_' || of;
   most CONSTANT integer := mailmaps.most_keys_together();
   transaction CONSTANT text := pg_current_xact_id()::text;
   said CONSTANT text := coalesce(current_setting(setting, true), '');
   sent integer := 0;
   keys text[];
BEGIN
   IF split_part(said, ':', 1) = transaction COLLATE "C" THEN
      sent := split_part(said, ':', 2);
   END IF;
   IF changed = '{}' OR sent > most THEN
      RETURN;
   END IF;
   IF cardinality(changed) <= mailmaps.most_keys() THEN
      keys := mailmaps.depending_keys(of, changed);
   END IF;
   sent := sent + coalesce(cardinality(keys), most + 1);
   -- A payload has less than 8000 bytes: 5800 of keys, and of the last one what goes beyond.
   IF sent > most OR EXISTS (
         SELECT FROM unnest(keys) AS k (key) WHERE octet_length(to_jsonb(k.key)::text) > 2000) THEN
      sent := most + 1;
      PERFORM pg_notify('mailmaps', jsonb_build_object('of', of)::text);
   ELSE
      PERFORM pg_notify('mailmaps', jsonb_build_object('of', of, 'keys', p.keys)::text)
      FROM (SELECT jsonb_agg(l.key ORDER BY l.key COLLATE "C") AS keys
            FROM (SELECT k.key, sum(octet_length(to_jsonb(k.key)::text) + 2) OVER (ORDER BY k.key COLLATE "C")
                  FROM unnest(keys) AS k (key)) AS l (key, length)
            GROUP BY l.length / 5800) AS p;
   END IF;
   PERFORM set_config(setting, transaction || ':' || sent, true);
END
$function$;

-- What each trigger below ends with. `changed`: the keys of rows that are others in a column that some view
-- reads; an UPDATE of other columns notifies the table alone, a statement that found no row nothing.
CREATE FUNCTION mailmaps.send_change(op text, relation text, of text, changed text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF changed = '{}' AND op <> 'UPDATE' COLLATE "C" THEN
      RETURN;
   END IF;
   PERFORM mailmaps.send_keys(of, changed);
   PERFORM pg_notify('mailmaps', jsonb_build_object('relation', relation)::text);
END
$function$;

-- Statement triggers, one function a table. They gather one key more than are named, so that a large INSERT
-- costs no more than a small one.

CREATE FUNCTION mailmaps.notify_user_addresses() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
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
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', changed);
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.notify_forwards() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
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
         (SELECT key, target_key, target FROM old_rows EXCEPT SELECT key, target_key, target FROM new_rows)
         UNION ALL
         (SELECT key, target_key, target FROM new_rows EXCEPT SELECT key, target_key, target FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', changed);
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.notify_domain_alias_keys() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
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
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', changed);
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.notify_relays() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM new_rows LIMIT most);
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM old_rows LIMIT most);
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM (
         (SELECT domain, transport FROM old_rows EXCEPT SELECT domain, transport FROM new_rows)
         UNION ALL
         (SELECT domain, transport FROM new_rows EXCEPT SELECT domain, transport FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'domains', changed);
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.notify_relay_recipients() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT mailmaps.fold(address) FROM new_rows LIMIT most);
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT mailmaps.fold(address) FROM old_rows LIMIT most);
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT mailmaps.fold(address) FROM (
         (SELECT address FROM old_rows EXCEPT SELECT address FROM new_rows)
         UNION ALL
         (SELECT address FROM new_rows EXCEPT SELECT address FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'relay_recipients', changed);
   RETURN NULL;
END
$function$;

-- An account: its email, and the addresses that its username has.
CREATE FUNCTION mailmaps.notify_user_accounts() RETURNS trigger
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
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', changed);
   RETURN NULL;
END
$function$;

-- Domains and domain aliases: what was ours and is not, or the other way round, is for "addresses" too.
CREATE FUNCTION mailmaps.notify_domains() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
   ours text[];
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM new_rows LIMIT most);
      ours := changed;
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM old_rows LIMIT most);
      ours := changed;
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT mailmaps.fold(c.domain) FROM (
         (SELECT domain, transport FROM old_rows EXCEPT SELECT domain, transport FROM new_rows)
         UNION ALL
         (SELECT domain, transport FROM new_rows EXCEPT SELECT domain, transport FROM old_rows)
      ) AS c LIMIT most);
      ours := ARRAY(SELECT c.key FROM (
         (SELECT mailmaps.fold(domain) AS key FROM old_rows EXCEPT SELECT mailmaps.fold(domain) FROM new_rows)
         UNION ALL
         (SELECT mailmaps.fold(domain) FROM new_rows EXCEPT SELECT mailmaps.fold(domain) FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   PERFORM mailmaps.send_keys('domains', changed);
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', ours);
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.notify_domain_aliases() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   most CONSTANT integer := mailmaps.most_keys() + 1;
   changed text[];
   ours text[];
BEGIN
   IF TG_OP = 'INSERT' THEN
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM new_rows LIMIT most);
      ours := changed;
   ELSIF TG_OP = 'DELETE' THEN
      changed := ARRAY(SELECT mailmaps.fold(domain) FROM old_rows LIMIT most);
      ours := changed;
   ELSIF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
      changed := ARRAY(SELECT mailmaps.fold(c.domain) FROM (
         (SELECT domain, target FROM old_rows EXCEPT SELECT domain, target FROM new_rows)
         UNION ALL
         (SELECT domain, target FROM new_rows EXCEPT SELECT domain, target FROM old_rows)
      ) AS c LIMIT most);
      ours := ARRAY(SELECT c.key FROM (
         (SELECT mailmaps.fold(domain) AS key FROM old_rows EXCEPT SELECT mailmaps.fold(domain) FROM new_rows)
         UNION ALL
         (SELECT mailmaps.fold(domain) FROM new_rows EXCEPT SELECT mailmaps.fold(domain) FROM old_rows)
      ) AS c LIMIT most);
   END IF;
   PERFORM mailmaps.send_keys('domains', changed);
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', ours);
   RETURN NULL;
END
$function$;

-- Every answer about addresses rests on the settings.
CREATE FUNCTION mailmaps.notify_settings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF TG_OP = 'UPDATE' THEN
      IF NOT EXISTS (TABLE new_rows EXCEPT TABLE old_rows) THEN
         RETURN NULL;
      END IF;
   END IF;
   PERFORM mailmaps.send_change(TG_OP, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'addresses', NULL);
   RETURN NULL;
END
$function$;

-- Puts the same four triggers on each table, and awake in whatever role a session writes (a subscriber's, a
-- restore's). Their names come after those of 0006, which have domain_alias_keys follow. Run at the end of
-- every create and upgrade, so that triggers that somebody dropped or disabled come back; nothing is touched
-- that is as it should be.
CREATE FUNCTION mailmaps.watch_tables() RETURNS void
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
      'mailmaps.settings'] LOOP
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
