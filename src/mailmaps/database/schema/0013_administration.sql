-- What the commands that run a mail domain need (docs/administration.md): who had which mailbox before, so that
-- nobody inherits another's mail, and what is disabled.

-- A mailbox as virtual(8) and Dovecot find it below the base: without slashes in front, behind, and doubled.
CREATE FUNCTION mailmaps.mailbox_path(mailbox text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN btrim(regexp_replace(mailbox COLLATE "C", '/+', '/', 'g'), '/');

-- For boxes of the same path, and those within and around it.
CREATE INDEX user_accounts_mailbox_path
   ON public.user_accounts ((mailmaps.mailbox_path(mailbox) COLLATE "C"));
CREATE INDEX user_accounts_uid ON public.user_accounts (uid);

-- Mailboxes that accounts have had, with whose they were: written by triggers when an account goes, or gets
-- another uid, gid or mailbox. Its mail may be there still, and files of its uid.
CREATE TABLE mailmaps.former_mailboxes (
   path text COLLATE "C" NOT NULL,
   uid integer NOT NULL,
   gid integer,
   username text NOT NULL,
   until timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX former_mailboxes_path ON mailmaps.former_mailboxes (path, until);
CREATE INDEX former_mailboxes_uid ON mailmaps.former_mailboxes (uid);
CREATE INDEX former_mailboxes_gid ON mailmaps.former_mailboxes (gid);

-- Domains that were removed: a folder of the domain may have their gid as its group.
CREATE TABLE mailmaps.former_domains (
   gid integer NOT NULL,
   domain text NOT NULL,
   until timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX former_domains_gid ON mailmaps.former_domains (gid);

-- SECURITY DEFINER: who deletes an account needs no right on the table. A statement trigger as all of ours.
CREATE FUNCTION mailmaps.remember_mailboxes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   -- A command that takes back what it has just written, says so: nobody has had that mailbox.
   IF current_setting('mailmaps.taking_back', true) = 'on' COLLATE "C" THEN
      RETURN NULL;
   ELSIF TG_OP = 'DELETE' THEN
      INSERT INTO mailmaps.former_mailboxes (path, uid, gid, username)
         SELECT mailmaps.mailbox_path(o.mailbox), o.uid, o.gid, o.username FROM old_rows o;
   ELSE
      INSERT INTO mailmaps.former_mailboxes (path, uid, gid, username)
         SELECT mailmaps.mailbox_path(o.mailbox), o.uid, o.gid, o.username FROM old_rows o
         WHERE NOT EXISTS (
            SELECT FROM new_rows n
            WHERE n.uid = o.uid AND n.gid IS NOT DISTINCT FROM o.gid
              AND mailmaps.mailbox_path(n.mailbox) = mailmaps.mailbox_path(o.mailbox) COLLATE "C");
   END IF;
   RETURN NULL;
END
$function$;

CREATE FUNCTION mailmaps.remember_domains() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF current_setting('mailmaps.taking_back', true) = 'on' COLLATE "C" THEN
      RETURN NULL;
   ELSIF TG_OP = 'DELETE' THEN
      INSERT INTO mailmaps.former_domains (gid, domain) SELECT o.gid, o.domain FROM old_rows o;
   ELSE
      INSERT INTO mailmaps.former_domains (gid, domain)
         SELECT o.gid, o.domain FROM old_rows o
         WHERE NOT EXISTS (SELECT FROM new_rows n WHERE n.gid = o.gid);
   END IF;
   RETURN NULL;
END
$function$;

CREATE TRIGGER mailmaps_remember_delete AFTER DELETE ON public.user_accounts
   REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.remember_mailboxes();
CREATE TRIGGER mailmaps_remember_update AFTER UPDATE ON public.user_accounts
   REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
   FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.remember_mailboxes();
CREATE TRIGGER mailmaps_remember_delete AFTER DELETE ON public.domains
   REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.remember_domains();
CREATE TRIGGER mailmaps_remember_update AFTER UPDATE ON public.domains
   REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
   FOR EACH STATEMENT EXECUTE FUNCTION mailmaps.remember_domains();

-- What is disabled is put aside here, and looked at by no view: a domain's transport while its mail waits, and
-- addresses and forwards that are not there while they are disabled. (An account has its own column, `active`.)
CREATE TABLE mailmaps.disabled_domains (
   domain text PRIMARY KEY,
   transport text NOT NULL
);
CREATE UNIQUE INDEX disabled_domains_folded ON mailmaps.disabled_domains ((mailmaps.fold(domain) COLLATE "C"));

CREATE TABLE mailmaps.disabled_addresses (
   alias text PRIMARY KEY,
   -- Not a reference, which TRUNCATE of the how-to's tables would have to name.
   username text NOT NULL
);
CREATE UNIQUE INDEX disabled_addresses_folded
   ON mailmaps.disabled_addresses ((mailmaps.fold(alias) COLLATE "C"));
CREATE INDEX disabled_addresses_username ON mailmaps.disabled_addresses (username);

CREATE TABLE mailmaps.disabled_forwards (
   address text NOT NULL
      CHECK (mailmaps.accept('disabled_forwards.address', address, mailmaps.address_problem(address))),
   target text NOT NULL
      CHECK (mailmaps.accept('disabled_forwards.target', target, mailmaps.address_problem(target))),
   PRIMARY KEY (address, target)
);
CREATE INDEX disabled_forwards_key ON mailmaps.disabled_forwards ((mailmaps.fold(address) COLLATE "C"));
