-- Who is live, and which target can receive.

-- The accounts with their state. `active` counts only where the settings say so.
CREATE VIEW mailmaps.accounts AS
   SELECT username, uid, gid, email, mailbox,
          mailmaps.fold(email) COLLATE "C" AS email_key,
          NOT coalesce((SELECT honour_active FROM mailmaps.settings), false)
             OR active COLLATE "C" IN ('1', 't', 'T', 'y', 'Y') AS live
   FROM public.user_accounts;

-- The addresses in user_addresses, each with its owner. (Not SELECT a.*: views must name what they carry.)
CREATE VIEW mailmaps.listed_addresses AS
   SELECT mailmaps.fold(u.alias) COLLATE "C" AS key,
          a.username, a.uid, a.gid, a.mailbox, a.email, a.email_key, a.live
   FROM public.user_addresses u
   JOIN mailmaps.accounts a ON a.username = u.username;

-- The emails that user_addresses does not list, each with one owner. Two accounts with one email: the live
-- one before the inactive one, then the smaller username.
CREATE VIEW mailmaps.unlisted_emails AS
   SELECT a.email_key AS key, a.username, a.uid, a.gid, a.mailbox, a.email, a.email_key, a.live
   FROM mailmaps.accounts a
   WHERE NOT EXISTS (
         SELECT FROM public.user_addresses u WHERE mailmaps.fold(u.alias) COLLATE "C" = a.email_key)
     AND NOT EXISTS (
         SELECT FROM mailmaps.accounts b
         WHERE b.email_key = a.email_key
           AND (NOT b.live, b.username COLLATE "C") < (NOT a.live, a.username COLLATE "C"));

-- Every address of every account, with the one account that owns it. Do not use it on the inner side of an
-- outer join: the planner cannot push a key through a UNION there.
CREATE VIEW mailmaps.owned_addresses AS
   SELECT key, username, uid, gid, mailbox, email, email_key, live FROM mailmaps.listed_addresses
   UNION ALL
   SELECT key, username, uid, gid, mailbox, email, email_key, live FROM mailmaps.unlisted_emails;

CREATE VIEW mailmaps.our_domains AS
   SELECT mailmaps.fold(domain) COLLATE "C" AS domain FROM public.domains
   WHERE mailmaps.domain_problem(domain) IS NULL AND left(domain, 1) <> '.' COLLATE "C"
   UNION ALL SELECT mailmaps.fold(domain) COLLATE "C" FROM mailmaps.domain_aliases;

-- Keys of domain aliases; an address that somebody has on his own account there goes first.
CREATE VIEW mailmaps.aliased_keys AS
   SELECT d.key, d.target_key
   FROM mailmaps.domain_alias_keys d
   WHERE NOT EXISTS (SELECT FROM mailmaps.known_keys k WHERE k.key = d.key);

-- The key without its extension, NULL when it has none (split_addr.c; facts/postfix.md 4.2).
CREATE FUNCTION mailmaps.without_extension(key text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   internal CONSTANT text := mailmaps.unquoted(mailmaps.local_of(key));
   lowered CONSTANT text := lower(internal COLLATE "C");
   delimiters text;
   special boolean;
   bouncer text;
   cut integer;
BEGIN
   SELECT recipient_delimiter, owner_request_special, double_bounce_sender
      INTO delimiters, special, bouncer FROM mailmaps.settings;
   IF delimiters = '' COLLATE "C" OR lowered IN ('postmaster', 'mailer-daemon', lower(bouncer)) THEN
      RETURN NULL;
   ELSIF special AND strpos(delimiters, '-') > 0 AND lowered COLLATE "C" ~ '^owner-|.-request$' THEN
      RETURN NULL;
   END IF;
   SELECT min(strpos(internal, delimiter)) INTO cut
      FROM string_to_table(delimiters, NULL) AS delimiter
      WHERE strpos(internal, delimiter) > 0;
   IF coalesce(cut, 1) = 1 THEN
      RETURN NULL;
   END IF;
   RETURN mailmaps.quoted(left(internal, cut - 1)) || '@' || mailmaps.domain_of(key);
END
$function$;

-- Where mail for exactly this key goes on to. NULL: the key is unknown; empty: it is known and ends there;
-- an empty string among them: a live mailbox takes it.
CREATE FUNCTION mailmaps.next_keys(candidate text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   owner record;
   targets text[];
BEGIN
   SELECT l.live, l.email_key INTO owner FROM mailmaps.listed_addresses l WHERE l.key = candidate COLLATE "C";
   IF NOT FOUND THEN
      SELECT a.live, a.email_key INTO owner FROM mailmaps.accounts a WHERE a.email_key = candidate COLLATE "C"
         ORDER BY a.live DESC, a.username COLLATE "C" LIMIT 1;
   END IF;
   IF NOT owner.live THEN
      RETURN '{}';
   END IF;
   SELECT array_agg(f.target_key) INTO targets FROM mailmaps.forwards f WHERE f.key = candidate COLLATE "C";
   IF owner.live THEN
      RETURN array_append(targets, CASE WHEN owner.email_key <> candidate COLLATE "C" THEN owner.email_key
                                        ELSE '' END);
   ELSIF targets IS NULL THEN
      SELECT ARRAY[d.target_key] INTO targets
         FROM mailmaps.domain_alias_keys d WHERE d.key = candidate COLLATE "C";
   END IF;
   RETURN targets;
END
$function$;

-- Whether mail to this address ends in a live mailbox or leaves for another host (whatever we know of an
-- address elsewhere: a "not found" sends the mail there). Any branch will do, a circle ends in nothing. An
-- unknown key of ours is tried without its extension and then by its catch-all,
-- as Postfix does. SECURITY DEFINER: who reads the views needs no right on the tables.
CREATE FUNCTION mailmaps.can_receive(address text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   queue text[] := ARRAY[mailmaps.fold(address)];
   place integer := 1;
   key text;
   wanted text;
   target text;
   targets text[];
BEGIN
   WHILE place <= cardinality(queue) LOOP
      key := queue[place];
      place := place + 1;
      wanted := mailmaps.domain_of(key);
      IF NOT EXISTS (SELECT FROM mailmaps.our_domains d WHERE d.domain = wanted) THEN
         RETURN true;
      END IF;
      targets := mailmaps.next_keys(key);
      IF targets IS NULL AND left(key, 1) <> '@' COLLATE "C" THEN
         targets := coalesce(mailmaps.next_keys(mailmaps.without_extension(key)),
                             mailmaps.next_keys('@' || wanted), '{}');
      END IF;
      FOREACH target IN ARRAY coalesce(targets, '{}') LOOP
         IF left(target, 1) = '@' COLLATE "C" THEN
            target := mailmaps.local_of(key) || target;
         END IF;
         IF target <> ALL (queue) THEN
            queue := queue || target;
         END IF;
      END LOOP;
   END LOOP;
   RETURN false;
END
$function$;

-- The listed addresses with whether mail to them arrives. The owner's email is an address like any other;
-- nearly always it is his own, and then this asks nothing more.
CREATE VIEW mailmaps.receiving_addresses AS
   SELECT l.key, l.email, l.live,
          l.live AND (l.key = l.email_key OR e.username IS NULL OR e.username = l.username
                      OR mailmaps.can_receive(l.email_key)) AS receives
   FROM mailmaps.listed_addresses l
   LEFT JOIN public.user_addresses e ON mailmaps.fold(e.alias) COLLATE "C" = l.email_key;
