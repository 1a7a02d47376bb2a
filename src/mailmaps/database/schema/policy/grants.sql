-- What the role `mailwriter` may do, where it exists: read and write what is in this schema, and nothing else
-- anywhere. Run at the end of `mailmaps schema create`, `upgrade` and `policy`; making the role is the
-- postmaster's business (docs/schema.md).
DO $block$
BEGIN
   IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailwriter') THEN
      GRANT USAGE ON SCHEMA mailpolicy TO mailwriter;
      GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mailpolicy TO mailwriter;
      REVOKE INSERT, UPDATE, DELETE ON mailpolicy.schema_version FROM mailwriter;
      GRANT USAGE ON ALL SEQUENCES IN SCHEMA mailpolicy TO mailwriter;
      GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mailpolicy TO mailwriter;
      REVOKE EXECUTE ON FUNCTION mailpolicy.note_change() FROM mailwriter;
   END IF;
   -- It runs as its owner: see the other grants.sql.
   REVOKE EXECUTE ON FUNCTION mailpolicy.note_change() FROM PUBLIC;
END
$block$;
