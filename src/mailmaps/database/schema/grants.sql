-- What the roles may read, where they exist: `mailreader` what lookups ask, and no password hash; `mailauth`
-- what logins ask, hashes among it, and nothing else; `mailadmin` writes what a mail domain is made of, and reads
-- what it must know for that. Run at the end of every create and upgrade; making roles
-- is the postmaster's business (docs/schema.md). The triggers that notify changes are put back where somebody
-- took them away.
DO $block$
DECLARE
   readable CONSTANT text := 'mailmaps.virtual_mailbox_domains, mailmaps.transport_maps, '
      'mailmaps.virtual_alias_maps, mailmaps.virtual_mailbox_maps, mailmaps.virtual_uid_maps, '
      'mailmaps.virtual_gid_maps, mailmaps.smtpd_sender_login_maps, mailmaps.sender_rights, '
      'mailmaps.relay_domains, mailmaps.relay_recipient_maps, mailmaps.schema_version, mailmaps.settings, '
      'mailmaps.doubtful_rows, public.postfix_mailboxes, public.postfix_aliases';
   routine regprocedure;
BEGIN
   -- Who may use a trigger function that runs as its owner can put it on a temporary table of his own, with a column
   -- whose cast is his own function: that then runs as the owner, too. Firing a trigger takes no right.
   FOR routine IN
      SELECT p.oid FROM pg_proc p
      WHERE p.pronamespace = 'mailmaps'::regnamespace AND p.prosecdef AND p.prorettype = 'trigger'::regtype
   LOOP
      EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
   END LOOP;
   IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailreader') THEN
      GRANT USAGE ON SCHEMA mailmaps TO mailreader;
      EXECUTE 'GRANT SELECT ON ' || readable || ' TO mailreader';
      GRANT EXECUTE ON FUNCTION mailmaps.depending_keys(text, text[]) TO mailreader;
   END IF;
   IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailauth') THEN
      GRANT USAGE ON SCHEMA mailmaps TO mailauth;
      GRANT SELECT ON mailmaps.logins, mailmaps.schema_version, mailmaps.settings TO mailauth;
   END IF;
   IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailadmin') THEN
      GRANT USAGE ON SCHEMA mailmaps TO mailadmin;
      GRANT SELECT, INSERT, UPDATE, DELETE ON public.domains, public.user_accounts, public.user_addresses,
         mailmaps.forwards, mailmaps.domain_aliases, mailmaps.relays, mailmaps.relay_recipients,
         mailmaps.rights, mailmaps.disabled_domains, mailmaps.disabled_addresses, mailmaps.disabled_forwards
         TO mailadmin;
      GRANT SELECT ON mailmaps.schema_version, mailmaps.settings, mailmaps.former_mailboxes,
         mailmaps.former_domains TO mailadmin;
      -- What Postfix's files shall say after a change; no view with hashes.
      EXECUTE 'GRANT SELECT ON ' || readable || ' TO mailadmin';
      -- `mailmaps import` copies its file into a temporary table.
      EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO mailadmin', current_database());
   END IF;
   PERFORM mailmaps.watch_tables();
END
$block$;
