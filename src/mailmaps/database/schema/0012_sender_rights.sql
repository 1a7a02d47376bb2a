-- Who may send as which address, and by which rule: `sender_rights`, which the policy service reads, and the
-- owners of sender addresses as Postfix knows them, both now with the addresses that are forwards.

-- The accounts that have a key as their own: those it is listed for; if it is listed for none, those whose
-- email it is.
CREATE VIEW mailmaps.key_owners AS
   SELECT mailmaps.fold(u.alias) COLLATE "C" AS key, u.username
   FROM public.user_addresses u
   UNION ALL
   SELECT mailmaps.fold(a.email) COLLATE "C", a.username
   FROM public.user_accounts a
   WHERE NOT EXISTS (
      SELECT FROM public.user_addresses u
      WHERE mailmaps.fold(u.alias) COLLATE "C" = mailmaps.fold(a.email) COLLATE "C");

-- Whether some table of ours has exactly this key, domain aliases among them.
CREATE FUNCTION mailmaps.has_entry(candidate text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   RETURN EXISTS (SELECT FROM mailmaps.known_keys k WHERE k.key = candidate COLLATE "C")
      OR EXISTS (SELECT FROM mailmaps.domain_alias_keys d WHERE d.key = candidate COLLATE "C");
END
$function$;

-- The entry that mail to this key finds: its own, without the extension, the catch-all; NULL: none, or it is
-- elsewhere. The order of can_receive (0007), except that an address elsewhere may have an entry of its own.
CREATE FUNCTION mailmaps.entry_of(address text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   wanted CONSTANT text COLLATE "C" := mailmaps.domain_of(address);
   candidate text COLLATE "C" := address;
BEGIN
   IF mailmaps.has_entry(candidate) THEN
      RETURN candidate;
   ELSIF left(address, 1) = '@' COLLATE "C"
      OR NOT EXISTS (SELECT FROM mailmaps.our_domains d WHERE d.domain = wanted) THEN
      RETURN NULL;
   END IF;
   candidate := mailmaps.without_extension(address);
   IF candidate IS NOT NULL AND mailmaps.has_entry(candidate) THEN
      RETURN candidate;
   END IF;
   candidate := '@' || wanted;
   RETURN CASE WHEN mailmaps.has_entry(candidate) THEN candidate END;
END
$function$;

-- More than `mailmaps.most_owners()` are nobody: who reads a list of thousands does not send as the list.
CREATE FUNCTION mailmaps.most_owners() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 100;

-- The accounts that mail to this key reaches, through chains of forwards. A key that accounts have is theirs:
-- what a forward beside it copies elsewhere makes nobody its owner. An address elsewhere is nobody's, a circle
-- leads nowhere. All keys of one round together: a list with thousands of members behind a forward must not
-- take a query each. SECURITY DEFINER: who reads the views needs no right on the tables.
CREATE FUNCTION mailmaps.reached_accounts(target text) RETURNS TABLE (username text, active boolean)
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER ROWS 2 SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off
AS $function$
#variable_conflict use_column
DECLARE
   fresh text[] COLLATE "C" := ARRAY[target];
   found text[] COLLATE "C" := '{}';
   names text[] := '{}';
   -- Pairs: a fresh key, and its entry; then those whose entry no account has.
   keys text[] COLLATE "C";
   entries text[] COLLATE "C";
BEGIN
   WHILE fresh <> '{}' LOOP
      found := found || fresh;
      IF cardinality(found) > 10 * mailmaps.most_owners() THEN
         RETURN;
      END IF;
      SELECT array_agg(e.key), array_agg(e.entry) INTO keys, entries
         FROM (SELECT c.key, mailmaps.entry_of(c.key) AS entry FROM unnest(fresh) AS c (key)) AS e
         WHERE e.entry IS NOT NULL;
      names := names || ARRAY(
         SELECT o.username FROM mailmaps.key_owners o WHERE o.key = ANY (entries));
      SELECT array_agg(e.key), array_agg(e.entry) INTO keys, entries
         FROM unnest(keys, entries) AS e (key, entry)
         WHERE NOT EXISTS (SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = e.entry)
           AND NOT EXISTS (SELECT FROM public.user_accounts a WHERE mailmaps.fold(a.email) COLLATE "C" = e.entry);
      fresh := ARRAY(
         SELECT CASE WHEN left(n.key, 1) = '@' COLLATE "C" THEN mailmaps.local_of(e.key) ELSE '' END || n.key
         FROM unnest(keys, entries) AS e (key, entry),
            LATERAL (
               SELECT f.target_key FROM mailmaps.forwards f WHERE f.key = e.entry
               UNION ALL
               SELECT d.target_key FROM mailmaps.domain_alias_keys d
               WHERE d.key = e.entry AND NOT EXISTS (SELECT FROM mailmaps.forwards f WHERE f.key = e.entry)
            ) AS n (key)
         EXCEPT
         SELECT l.key FROM unnest(found) AS l (key));
   END LOOP;
   IF cardinality(names) > mailmaps.most_owners() THEN
      RETURN;
   END IF;
   -- Variables have the collation of the call, the index on usernames has not.
   RETURN QUERY
      SELECT a.username, a.active FROM mailmaps.accounts a WHERE a.username = ANY (names COLLATE "default");
END
$function$;

-- What accounts have as their own: as key_owners, with the account and the rule (sender_rights below).
CREATE VIEW mailmaps.own_addresses AS
   SELECT mailmaps.fold(u.alias) COLLATE "C" AS key, a.username, a.active,
          CASE WHEN mailmaps.fold(u.alias) COLLATE "C" = a.email_key THEN 'o' ELSE 'a' END AS rules
   FROM public.user_addresses u
   JOIN mailmaps.accounts a ON a.username = u.username
   UNION ALL
   SELECT a.email_key, a.username, a.active, 'o'
   FROM mailmaps.accounts a
   WHERE NOT EXISTS (
      SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = a.email_key);

-- Forwards, a target a row, and the keys that domain aliases make of them where no forward has the key itself.
-- `entry`: the forward's own key.
CREATE VIEW mailmaps.forwarded_keys AS
   SELECT f.key, f.key AS entry, 'f'::text AS rules, f.target_key
   FROM mailmaps.forwards f
   UNION ALL
   SELECT d.key, f.key, 'fd', f.target_key
   FROM mailmaps.domain_alias_keys d
   JOIN mailmaps.forwards f ON f.key = d.target_key
   WHERE NOT EXISTS (SELECT FROM mailmaps.forwards o WHERE o.key = d.key);

-- As in 0011, with the rule, and with the owners of forwards that no account has as its own address;
-- `username` NULL: nobody. (A view of few parts: getting a plan ready takes longer than running it.)
CREATE OR REPLACE VIEW mailmaps.sender_owners AS
   SELECT o.key, o.username, o.active, o.rules
   FROM mailmaps.own_addresses o
   UNION ALL
   SELECT k.key, o.username, o.active, o.rules || 'd'
   FROM mailmaps.inherited_keys k
   CROSS JOIN LATERAL (
      -- OFFSET: by index for each key, never joined with all.
      SELECT own.username, own.active, own.rules FROM mailmaps.own_addresses own
      WHERE own.key = k.target_key OFFSET 0) AS o
   UNION ALL
   -- Only in our domains: a forward of somebody else's address makes nobody here its owner. A catch-all to
   -- another domain (@other) is nobody's either: mail to each of its addresses goes to somebody else there.
   -- Nearly every target is a listed address or one elsewhere; for others the function is asked (it is
   -- STRICT: not for NULL).
   SELECT k.key, coalesce(a.username, t.username), coalesce(a.active, t.active), k.rules
   FROM mailmaps.forwarded_keys k
   CROSS JOIN LATERAL (
      SELECT EXISTS (SELECT FROM mailmaps.forwards m WHERE m.key = k.entry OFFSET mailmaps.most_owners())
         AS is_long) AS l
   LEFT JOIN public.user_addresses u
      ON mailmaps.fold(u.alias) COLLATE "C" = k.target_key AND left(k.target_key, 1) <> '@' COLLATE "C"
   LEFT JOIN mailmaps.accounts a ON a.username = u.username AND NOT l.is_long
   LEFT JOIN LATERAL mailmaps.reached_accounts(CASE
         WHEN u.username IS NULL AND left(k.target_key, 1) <> '@' COLLATE "C" AND NOT l.is_long AND (
               EXISTS (SELECT FROM mailmaps.our_domains d WHERE d.domain = mailmaps.domain_of(k.target_key))
            OR EXISTS (SELECT FROM mailmaps.forwards f WHERE f.key = k.target_key)
            OR EXISTS (SELECT FROM public.user_accounts e
                       WHERE mailmaps.fold(e.email) COLLATE "C" = k.target_key))
         THEN k.target_key END) AS t ON true
   WHERE EXISTS (SELECT FROM mailmaps.our_domains d WHERE d.domain = mailmaps.domain_of(k.key))
     AND NOT EXISTS (SELECT FROM public.user_addresses o
                     WHERE mailmaps.fold(o.alias) COLLATE "C" = ANY (ARRAY[k.key, k.entry]))
     AND NOT EXISTS (SELECT FROM public.user_accounts o
                     WHERE mailmaps.fold(o.email) COLLATE "C" = ANY (ARRAY[k.key, k.entry]));

-- `value`: "RULES LOGIN", one row for each way. RULES, in this order: `o` the account's own email, `a` another
-- address of its own, `f` a forward that reaches it; `d` through a domain alias besides. LOGIN: as in 0011. NULL:
-- the address is known, and nobody's.
CREATE VIEW mailmaps.sender_rights AS
   SELECT o.key, v.value
   FROM mailmaps.sender_owners o
   CROSS JOIN LATERAL (
      SELECT o.rules || ' ' || CASE WHEN o.active THEN o.username WHEN NOT o.active THEN '!inactive' END
      UNION ALL
      SELECT o.rules || ' ' || s.login FROM mailmaps.spelt_logins(o.username) AS s (login)
      WHERE (SELECT login_realm <> '' COLLATE "C" OR login_addresses FROM mailmaps.settings) AND o.active
   ) AS v (value);

-- The rules that mailmaps.toml switches off, of the letters above and @ for catch-alls; for those who read the
-- next view. (The daemon reads the one above, and has the settings themselves.)
ALTER TABLE mailmaps.settings ADD COLUMN sender_rules_off text NOT NULL DEFAULT '';

-- As Postfix knows them, for files and pgsql_table(5). With a rule off its addresses stay ours: '!nobody' can be
-- no username.
CREATE OR REPLACE VIEW mailmaps.smtpd_sender_login_maps AS
   SELECT r.key,
          CASE
             WHEN r.value IS NULL OR s.off = '' COLLATE "C" THEN split_part(r.value, ' ', 2)
             WHEN translate(split_part(r.value, ' ', 1), s.off, '') <> split_part(r.value, ' ', 1) COLLATE "C"
                OR strpos(s.off, '@') > 0 AND left(r.key, 1) = '@' COLLATE "C" THEN '!nobody'
             ELSE split_part(r.value, ' ', 2)
          END AS value
   FROM mailmaps.sender_rights r
   CROSS JOIN (SELECT coalesce((SELECT sender_rules_off FROM mailmaps.settings), '') AS off) AS s;

-- Changes: a forward has owners while its domain is ours. As in 0011, with the forwards of changed domains.
CREATE INDEX forwards_domain ON mailmaps.forwards ((split_part(key, '@', -1)));

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
         SELECT f.key FROM mailmaps.forwards f WHERE split_part(f.key, '@', -1) = ANY (ours)
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
