-- What the roles may read, where they exist: `mailreader` what lookups ask, and no password hash; `mailauth`
-- what logins ask, hashes among it, and nothing else. Run at the end of every create and upgrade; making roles
-- is the postmaster's business (docs/schema.md). The triggers that notify changes are put back where somebody
-- took them away.
DO $block$
DECLARE
   readable CONSTANT text := 'mailmaps.virtual_mailbox_domains, mailmaps.transport_maps, '
      'mailmaps.virtual_alias_maps, mailmaps.virtual_mailbox_maps, mailmaps.virtual_uid_maps, '
      'mailmaps.virtual_gid_maps, mailmaps.smtpd_sender_login_maps, mailmaps.sender_rights, '
      'mailmaps.relay_domains, mailmaps.relay_recipient_maps, mailmaps.schema_version, mailmaps.settings, '
      'mailmaps.doubtful_rows, public.postfix_mailboxes, public.postfix_aliases';
BEGIN
   IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailreader') THEN
      GRANT USAGE ON SCHEMA mailmaps TO mailreader;
      EXECUTE 'GRANT SELECT ON ' || readable || ' TO mailreader';
      GRANT EXECUTE ON FUNCTION mailmaps.depending_keys(text, text[]) TO mailreader;
   END IF;
   IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailauth') THEN
      GRANT USAGE ON SCHEMA mailmaps TO mailauth;
      GRANT SELECT ON mailmaps.logins, mailmaps.schema_version, mailmaps.settings TO mailauth;
   END IF;
   PERFORM mailmaps.watch_tables();
END
$block$;
