-- For a site's own tables: tells on channel `mailmaps` that some row of a table changed. It has a schema of its
-- own, so that it can stand in any database (PostfixAdmin's, say) and nothing is taken for our schema. Run by
-- `mailmaps schema watch`, as often as you like.
CREATE SCHEMA IF NOT EXISTS mailmaps_changes;
GRANT USAGE ON SCHEMA mailmaps_changes TO PUBLIC;

-- A statement that found no row tells nothing.
CREATE OR REPLACE FUNCTION mailmaps_changes.relation_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF TG_OP = 'DELETE' THEN
      IF NOT EXISTS (SELECT FROM old_rows) THEN
         RETURN NULL;
      END IF;
   ELSIF TG_OP <> 'TRUNCATE' THEN
      IF NOT EXISTS (SELECT FROM new_rows) THEN
         RETURN NULL;
      END IF;
   END IF;
   PERFORM pg_notify('mailmaps',
                     jsonb_build_object('relation', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME)::text);
   RETURN NULL;
END
$function$;
