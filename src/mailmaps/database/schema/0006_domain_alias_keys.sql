-- The keys that domain aliases add, written out: local@alias for each known local@target, so that
-- unknown@alias is refused and a lookup stays one index probe. Triggers keep the table; nobody writes it.
--
-- Concurrent transactions. A new address must see the aliases, a new alias the addresses, and the last of
-- two deleted sources of one key must see that the other is gone. So writers that matter queue up on the
-- row of domain_alias_lock: address writers share it while there is no alias, all others update it. A
-- later statement of READ COMMITTED then sees what was committed; an older snapshot (REPEATABLE READ) ends
-- in a serialization failure, and writers of aliases, whom a shared lock could not warn, must not use one.

CREATE TABLE mailmaps.domain_alias_keys (
   key text COLLATE "C" PRIMARY KEY,
   target_key text COLLATE "C" NOT NULL
);
CREATE INDEX domain_alias_keys_target ON mailmaps.domain_alias_keys (target_key);

CREATE TABLE mailmaps.domain_alias_lock (
   only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
   changes bigint NOT NULL DEFAULT 0
);
INSERT INTO mailmaps.domain_alias_lock DEFAULT VALUES;

-- Every key that some table of ours answers, from whichever table.
CREATE VIEW mailmaps.known_keys AS
   SELECT mailmaps.fold(alias) COLLATE "C" AS key FROM public.user_addresses
   UNION ALL SELECT mailmaps.fold(email) COLLATE "C" FROM public.user_accounts
   UNION ALL SELECT key FROM mailmaps.forwards;

-- Writes the keys of these alias domains anew (folded; NULL: of all).
CREATE FUNCTION mailmaps.write_domain_alias_keys(domains text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   DELETE FROM mailmaps.domain_alias_keys d
      WHERE domains IS NULL OR mailmaps.domain_of(d.key) = ANY (domains);
   INSERT INTO mailmaps.domain_alias_keys (key, target_key)
      SELECT mailmaps.local_of(k.key) || '@' || mailmaps.fold(a.domain), k.key
      FROM mailmaps.domain_aliases a
      JOIN mailmaps.known_keys k
        ON mailmaps.domain_of(k.key) = mailmaps.fold(a.target) COLLATE "C"
      WHERE domains IS NULL OR mailmaps.fold(a.domain) = ANY (domains)
      ON CONFLICT (key) DO NOTHING;
END
$function$;

-- Follows changed keys (folded) of user_addresses, user_accounts and forwards.
CREATE FUNCTION mailmaps.follow_keys(changed text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF changed IS NULL THEN
      RETURN;
   END IF;
   IF EXISTS (SELECT FROM mailmaps.domain_aliases) THEN
      UPDATE mailmaps.domain_alias_lock SET changes = changes + 1;
   ELSE
      PERFORM FROM mailmaps.domain_alias_lock FOR SHARE;
   END IF;
   DELETE FROM mailmaps.domain_alias_keys d
      USING unnest(changed) AS c (key)
      WHERE d.target_key = c.key COLLATE "C"
        AND NOT EXISTS (SELECT FROM mailmaps.known_keys k WHERE k.key = d.target_key);
   INSERT INTO mailmaps.domain_alias_keys (key, target_key)
      SELECT mailmaps.local_of(c.key) || '@' || mailmaps.fold(a.domain), c.key
      FROM unnest(changed) AS c (key)
      JOIN mailmaps.domain_aliases a ON mailmaps.domain_of(c.key) = mailmaps.fold(a.target) COLLATE "C"
      WHERE EXISTS (SELECT FROM mailmaps.known_keys k WHERE k.key = c.key COLLATE "C")
      ON CONFLICT (key) DO NOTHING;
END
$function$;

-- For writers who may change a domain alias.
CREATE FUNCTION mailmaps.lock_domain_aliases() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF current_setting('transaction_isolation') <> 'read committed' COLLATE "C"
      AND EXISTS (SELECT FROM mailmaps.domain_aliases) THEN
      RAISE EXCEPTION 'domain aliases are written in READ COMMITTED transactions only'
         USING ERRCODE = 'active_sql_transaction';
   END IF;
   UPDATE mailmaps.domain_alias_lock SET changes = changes + 1;
END
$function$;

-- Statement triggers. PostgreSQL wants one for each event where transition tables are used; an UPDATE that
-- changes no key (a quota, a password) takes no lock.

CREATE FUNCTION mailmaps.user_addresses_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF TG_OP = 'INSERT' THEN
      PERFORM mailmaps.follow_keys((SELECT array_agg(mailmaps.fold(alias)) FROM new_rows));
   ELSIF TG_OP = 'DELETE' THEN
      PERFORM mailmaps.follow_keys((SELECT array_agg(mailmaps.fold(alias)) FROM old_rows));
   ELSE
      PERFORM mailmaps.follow_keys((SELECT array_agg(key) FROM (
         (SELECT mailmaps.fold(alias) AS key FROM old_rows EXCEPT SELECT mailmaps.fold(alias) FROM new_rows)
         UNION ALL
         (SELECT mailmaps.fold(alias) FROM new_rows EXCEPT SELECT mailmaps.fold(alias) FROM old_rows)
      ) AS changed));
   END IF;
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.user_accounts_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF TG_OP = 'INSERT' THEN
      PERFORM mailmaps.follow_keys((SELECT array_agg(mailmaps.fold(email)) FROM new_rows));
   ELSIF TG_OP = 'DELETE' THEN
      PERFORM mailmaps.follow_keys((SELECT array_agg(mailmaps.fold(email)) FROM old_rows));
   ELSE
      PERFORM mailmaps.follow_keys((SELECT array_agg(key) FROM (
         (SELECT mailmaps.fold(email) AS key FROM old_rows EXCEPT SELECT mailmaps.fold(email) FROM new_rows)
         UNION ALL
         (SELECT mailmaps.fold(email) FROM new_rows EXCEPT SELECT mailmaps.fold(email) FROM old_rows)
      ) AS changed));
   END IF;
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.forwards_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF TG_OP = 'INSERT' THEN
      PERFORM mailmaps.follow_keys((SELECT array_agg(key) FROM new_rows));
   ELSIF TG_OP = 'DELETE' THEN
      PERFORM mailmaps.follow_keys((SELECT array_agg(key) FROM old_rows));
   ELSE
      PERFORM mailmaps.follow_keys((SELECT array_agg(key) FROM (
         (SELECT key FROM old_rows EXCEPT SELECT key FROM new_rows)
         UNION ALL
         (SELECT key FROM new_rows EXCEPT SELECT key FROM old_rows)
      ) AS changed));
   END IF;
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.domain_aliases_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   changed text[] := '{}';
BEGIN
   IF TG_OP <> 'INSERT' THEN
      changed := changed || coalesce((SELECT array_agg(mailmaps.fold(domain)) FROM old_rows), '{}');
   END IF;
   IF TG_OP <> 'DELETE' THEN
      changed := changed || coalesce((SELECT array_agg(mailmaps.fold(domain)) FROM new_rows), '{}');
   END IF;
   IF changed <> '{}' THEN
      PERFORM mailmaps.lock_domain_aliases();
      PERFORM mailmaps.write_domain_alias_keys(changed);
   END IF;
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.table_emptied() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   PERFORM mailmaps.lock_domain_aliases();
   PERFORM mailmaps.write_domain_alias_keys(NULL);
   RETURN NULL;
END
$function$;

-- The same four triggers on each table; its function is named after it.
DO $block$
DECLARE
   tab text;
   event text;
   tables text;
BEGIN
   FOREACH tab IN ARRAY ARRAY['public.user_addresses', 'public.user_accounts', 'mailmaps.forwards',
                              'mailmaps.domain_aliases'] LOOP
      FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
         tables := CASE event WHEN 'INSERT' THEN 'NEW TABLE AS new_rows'
                              WHEN 'DELETE' THEN 'OLD TABLE AS old_rows'
                              ELSE 'OLD TABLE AS old_rows NEW TABLE AS new_rows' END;
         EXECUTE format('CREATE TRIGGER mailmaps_%s AFTER %s ON %s REFERENCING %s '
                        'FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.%s_changed()',
                        lower(event COLLATE "C"), event, tab, tables, split_part(tab, '.', 2));
      END LOOP;
      EXECUTE format('CREATE TRIGGER mailmaps_truncate AFTER TRUNCATE ON %s '
                     'FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.table_emptied()', tab);
   END LOOP;
END
$block$;
